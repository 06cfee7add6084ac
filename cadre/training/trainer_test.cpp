#include "cadre/training/trainer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cadre/base/interrupt.h"
#include "cadre/formats/file.h"
#include "cadre/training/generation.h"
#include "cadre/training/test_kit.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;

TrainOptions tiny_options() {
  return {.steps = 20,
          .batch = 4,
          .length = 24,
          .lr = 3e-3,
          .warmup_steps = 4,
          .evaluate_every = 8,
          .evaluate_sequences = 4,
          .save_every = 0};
}

/// metrics.jsonl without its times.
std::vector<json> metrics_in(const std::filesystem::path& folder) {
  std::vector<json> lines;
  std::istringstream text(read_file(folder / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) {
    lines.push_back(json::parse(line));
    lines.back().erase("seconds");
    lines.back().erase("tokens_per_second");
  }
  return lines;
}

class TrainerTest : public testing::Test {
 protected:
  Trainer make(const std::string& name, const TrainOptions& options = tiny_options(),
               const ModelConfig& config = tiny_deepseek()) {
    return Trainer(world_ / name, config, options, world_.batches(options.batch, options.length),
                   world_.tokenizer);
  }
  TrainResult train(const std::string& name, const TrainOptions& options = tiny_options(),
                    const ModelConfig& config = tiny_deepseek()) {
    return make(name, options, config).run();
  }
  /// Trains until step `last`, then is interrupted.
  TrainResult train_until(const std::string& name, int64_t last,
                          const TrainOptions& options = tiny_options(),
                          const ModelConfig& config = tiny_deepseek()) {
    install_interrupt_handlers();
    Trainer trainer = make(name, options, config);
    const TrainResult result = trainer.run([&](const StepReport& report) {
      if (report.step == last) ::raise(SIGINT);
    });
    clear_interrupt();
    return result;
  }
  std::string bytes(const std::string& name, const std::string& file) {
    return read_file(world_ / name / file);
  }

  TinyWorld world_;
};

TEST_F(TrainerTest, LearnsWhatDomainsHaveInCommonAndWhatNot) {
  TrainOptions options = tiny_options();
  options.steps = 150;
  options.batch = 8;
  options.lr = 1e-2;
  options.evaluate_every = 50;
  const TrainResult result = train("run", options);
  ASSERT_EQ(result.validation.domains.size(), 2U);
  EXPECT_EQ(result.validation.domains[0].domain, "ah");
  for (const DomainLoss& domain : result.validation.domains) {
    EXPECT_LT(domain.loss, 0.75 * std::log(8.0)) << "below the unigram entropy: context is used";
  }
  EXPECT_EQ(result.tokens, 150 * 8 * 24);
  ASSERT_EQ(result.curve.size(), 3U);
  EXPECT_GT(result.curve[0].loss, result.curve[2].loss);
  EXPECT_EQ(result.curve[2].loss, result.validation.mean);

  const auto model = load_checkpoint(world_ / "run");
  const Evaluation again = evaluate(*model, world_.domains(), 8, 24, options.evaluate_sequences);
  EXPECT_EQ(again.mean, result.validation.mean) << "the checkpoint is the trained model";
  const std::string text =
      generate(*model, world_.tokenizer, "abcd", {.tokens = 30, .temperature = 0});
  EXPECT_EQ(text.find_first_not_of("abcdefgh"), std::string::npos) << text;
}

TEST_F(TrainerTest, ReportsWhatItDoes) {
  std::vector<StepReport> reports;
  make("run").run([&](const StepReport& report) { reports.push_back(report); });
  ASSERT_EQ(reports.size(), 20U);
  const StepReport& report = reports[9];
  EXPECT_EQ(report.step, 10);
  EXPECT_EQ(report.steps, 20);
  EXPECT_EQ(report.tokens, 10 * 4 * 24);
  EXPECT_GT(report.loss, report.cross_entropy) << "auxiliary losses come on top";
  EXPECT_GT(report.grad_norm, 0);
  EXPECT_GT(report.tokens_per_second, 0);
  EXPECT_GT(report.train_seconds, reports[8].train_seconds);
  EXPECT_LE(report.router_entropy, std::log(8.0) + 1e-6);
  EXPECT_GT(report.router_entropy, 0);
  EXPECT_GE(report.max_over_mean_load, 1);
  EXPECT_EQ(report.load.size(), 8U);

  const auto lines = metrics_in(world_ / "run");
  ASSERT_EQ(lines.size(), 20U + 3U) << "20 steps, evaluations after 8, 16 and 20";
  EXPECT_EQ(lines[8]["validation"].size(), 2U) << lines[8];
  EXPECT_EQ(lines[10]["step"], 10) << lines[10];
  EXPECT_EQ(lines[10]["aux"].size(), 2U);
  EXPECT_EQ(lines[10]["router_entropy"].size(), 2U) << "one per expert layer";
  for (const char* key : {"loss", "cross_entropy", "lr", "grad_norm", "tokens"}) {
    EXPECT_TRUE(lines[10].contains(key)) << key;
  }
}

TEST_F(TrainerTest, AnInterruptedRunResumesBitForBit) {
  const TrainResult whole = train("whole");
  const TrainResult half = train_until("parts", 10);
  EXPECT_EQ(half.end, TrainResult::End::kInterrupted);
  EXPECT_EQ(half.steps, 10);
  EXPECT_NO_THROW(load_checkpoint(world_ / "parts")) << "also a checkpoint others can read";
  Trainer rest = make("parts");
  EXPECT_TRUE(rest.resumed());
  EXPECT_EQ(rest.first_step(), 10);
  const TrainResult result = rest.run();

  EXPECT_EQ(result.end, TrainResult::End::kFinished);
  EXPECT_EQ(bytes("parts", "model.safetensors"), bytes("whole", "model.safetensors"));
  EXPECT_EQ(bytes("parts", "state/moments.safetensors"),
            bytes("whole", "state/moments.safetensors"));
  EXPECT_EQ(metrics_in(world_ / "parts"), metrics_in(world_ / "whole"));
  EXPECT_EQ(result.validation.mean, whole.validation.mean);
  EXPECT_EQ(result.tokens, whole.tokens);
  EXPECT_EQ(result.curve.size(), whole.curve.size());
  EXPECT_GT(result.train_seconds, half.train_seconds);
}

/// Experts by lot, held together: two passes a batch.
TrainOptions consistent_options() {
  TrainOptions options = tiny_options();
  options.consistency = 5;
  return options;
}

ModelConfig stochastic_model() {
  ModelConfig config = tiny_deepseek();
  config.router.kind = "stochastic";
  return config;
}

TEST_F(TrainerTest, ConsistentPassesResumeBitForBit) {
  train("whole", consistent_options(), stochastic_model());
  train_until("parts", 10, consistent_options(), stochastic_model());
  train("parts", consistent_options(), stochastic_model());
  EXPECT_EQ(bytes("parts", "model.safetensors"), bytes("whole", "model.safetensors"));
  EXPECT_EQ(metrics_in(world_ / "parts"), metrics_in(world_ / "whole"));
  for (const json& line : metrics_in(world_ / "whole")) {
    if (!line.contains("loss")) continue;
    EXPECT_GT(line["aux"]["consistency"].get<double>(), 0);
    double sum = 2 * line["cross_entropy"].get<double>();
    for (const auto& [name, term] : line["aux"].items()) sum += term.get<double>();
    EXPECT_NEAR(line["loss"].get<double>(), sum, 1e-4);
  }
}

TEST_F(TrainerTest, ConsistencyMakesPredictionsAlike) {
  TrainOptions options = tiny_options();
  options.steps = 60;
  options.lr = 1e-2;
  const auto last_term = [&](const std::string& name, double coefficient) {
    options.consistency = coefficient;
    train(name, options, stochastic_model());
    double sum = 0;
    for (const json& line : metrics_in(world_ / name)) {
      if (line.contains("loss") && line["step"] > 40)
        sum += line["aux"]["consistency"].get<double>();
    }
    return sum / coefficient;
  };
  EXPECT_LT(last_term("held", 5), 0.7 * last_term("free", 1e-6));
}

TEST_F(TrainerTest, ConsistencyIsForRoutersThatDraw) {
  TrainOptions options = consistent_options();
  EXPECT_THAT(message_of<UsageError>([&] { make("a", options); }), HasSubstr("draws nothing"));
  ModelConfig config = tiny_deepseek();
  config.router.kind = "top_p";
  EXPECT_THAT(message_of<UsageError>([&] { make("a", options, config); }),
              HasSubstr("the router top_p draws nothing"));
  train_until("run", 5, options, stochastic_model());
  options.consistency = 1;
  EXPECT_THAT(message_of<UsageError>([&] { make("run", options, stochastic_model()); }),
              HasSubstr("consistency = 5.0, now it is 1.0"));
  options.consistency = NAN;
  EXPECT_THAT(message_of<UsageError>([&] { make("b", options, stochastic_model()); }),
              HasSubstr("consistency is nan"));
}

TEST_F(TrainerTest, LinesOfStepsAfterTheStateAreDropped) {
  train("whole");
  train_until("parts", 5);
  write_file(world_ / "parts" / "metrics.jsonl",
             bytes("parts", "metrics.jsonl") + "{\"step\":6,\"loss\":1}\n{\"step\":7,\"lo");
  make("parts").run();
  EXPECT_EQ(metrics_in(world_ / "parts"), metrics_in(world_ / "whole"));
}

TEST_F(TrainerTest, AFinishedRunReturnsItsResultAgain) {
  const TrainResult first = train("run");
  const std::string before = bytes("run", "metrics.jsonl");
  Trainer again = make("run");
  int steps = 0;
  const TrainResult second = again.run([&](const StepReport&) { ++steps; });
  EXPECT_EQ(steps, 0);
  EXPECT_EQ(second.end, TrainResult::End::kFinished);
  EXPECT_EQ(second.validation.mean, first.validation.mean);
  EXPECT_EQ(second.validation.domains[1].domain, "ip");
  EXPECT_EQ(second.curve.size(), first.curve.size());
  EXPECT_EQ(second.train_seconds, first.train_seconds);
  EXPECT_EQ(bytes("run", "metrics.jsonl"), before);
}

TEST_F(TrainerTest, AccumulatedMicroBatchesAreTheBigBatch) {
  // Without the balance loss, which is not a mean over tokens.
  ModelConfig config = tiny_deepseek();
  config.balance_coefficient = 0;
  TrainOptions big = tiny_options(), small = tiny_options();
  big.steps = small.steps = 3;
  big.batch = 8;
  small.batch = 2;
  small.accumulate = 4;
  // One step of Adam divides by the gradient's size: compare losses and norms, then weights
  // loosely.
  train("big", big, config);
  train("small", small, config);
  const auto a = metrics_in(world_ / "big"), b = metrics_in(world_ / "small");
  for (const char* key : {"loss", "grad_norm", "cross_entropy"}) {
    for (int step = 0; step < 3; ++step) {
      EXPECT_NEAR(a[step][key].get<double>(), b[step][key].get<double>(), 1e-4) << key << step;
    }
  }
  const torch::Tensor ids = torch::arange(97, 113).unsqueeze(0);
  EXPECT_TRUE(load_checkpoint(world_ / "big")
                  ->logits(ids)
                  .allclose(load_checkpoint(world_ / "small")->logits(ids), 1e-2, 2e-3));
}

TEST_F(TrainerTest, RecomputingGivesTheSameRun) {
  TrainOptions options = tiny_options();
  train("keep", options);
  options.activations = Activations::kRecompute;
  train("recompute", options);
  EXPECT_EQ(bytes("keep", "model.safetensors"), bytes("recompute", "model.safetensors"));
  EXPECT_EQ(metrics_in(world_ / "keep"), metrics_in(world_ / "recompute"));
}

TEST_F(TrainerTest, FineTunesAnInitialModel) {
  auto initial = std::make_unique<LanguageModel>(tiny_llama(), 99);
  const torch::Tensor before = initial->decoder()->norm->weight.detach().clone();
  TrainOptions options = tiny_options();
  options.steps = 1;
  const auto data = world_.batches(options.batch, options.length);
  Trainer trainer(world_ / "run", tiny_llama(), options, data, world_.tokenizer,
                  std::move(initial));
  EXPECT_TRUE(trainer.model().decoder()->norm->weight.equal(before));
  trainer.run();
  EXPECT_FALSE(trainer.model().decoder()->norm->weight.equal(before));
  EXPECT_THAT(message_of<UsageError>([&] {
                Trainer(world_ / "other", tiny_deepseek(), options, data, world_.tokenizer,
                        std::make_unique<LanguageModel>(tiny_llama(), 1));
              }),
              HasSubstr("another configuration"));
}

TEST_F(TrainerTest, StopsOnNanAndNamesStepAndTensor) {
  TrainOptions options = tiny_options();
  options.save_every = 5;
  const auto poison_at = [&](const std::string& name, int64_t step, const std::string& tensor) {
    Trainer trainer = make(name, options);
    return message_of<Error>([&] {
      trainer.run([&](const StepReport& report) {
        if (report.step != step) return;
        const torch::NoGradGuard no_grad;
        for (auto& [key, weight] : trainer.model().named_weights()) {
          if (key == tensor) weight.view(-1)[0] = NAN;
        }
      });
    });
  };
  EXPECT_THAT(
      poison_at("a", 7, "model.layers.1.mlp.gate.weight"),
      testing::AllOf(HasSubstr("training stopped at step 8"), HasSubstr("layers.1.mlp.gate.weight"),
                     HasSubstr("last saved state, which is intact")));
  EXPECT_THAT(poison_at("b", 2, "lm_head.weight"),
              testing::AllOf(HasSubstr("training stopped at step 3"), HasSubstr("lm_head.weight"),
                             testing::Not(HasSubstr("saved state"))));
  Trainer resumed = make("a", options);
  EXPECT_EQ(resumed.first_step(), 5);
  EXPECT_EQ(resumed.run().end, TrainResult::End::kFinished);
  train("whole", options);
  EXPECT_EQ(bytes("a", "model.safetensors"), bytes("whole", "model.safetensors"));
}

TEST_F(TrainerTest, AGradientThatIsNotFiniteIsNamed) {
  TrainOptions options = tiny_options();
  options.lr = 1e30;
  const std::string message = message_of<Error>([&] { train("run", options); });
  EXPECT_THAT(message, HasSubstr("training stopped at step"));
  EXPECT_THAT(message, HasSubstr("try a lower learning rate"));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST_F(TrainerTest, AStateOfOtherOptionsIsRefused) {
  train_until("run", 5);
  const auto error = [&](const TrainOptions& options, const ModelConfig& config) {
    return message_of<UsageError>([&] { make("run", options, config); });
  };
  TrainOptions options = tiny_options();
  options.lr = 0.5;
  EXPECT_THAT(error(options, tiny_deepseek()),
              HasSubstr("was made with lr = 0.003, now it is 0.5"));
  options = tiny_options();
  options.batch = 8;
  EXPECT_THAT(error(options, tiny_deepseek()), HasSubstr("batch = 4, now it is 8"));
  options = tiny_options();
  options.seed = 2;
  EXPECT_THAT(error(options, tiny_deepseek()), HasSubstr("seed = 1, now it is 2"));
  ModelConfig config = tiny_deepseek();
  config.layers = 4;
  EXPECT_THAT(error(tiny_options(), config), HasSubstr("model.num_hidden_layers = 3, now it is 4"));
  options = tiny_options();
  options.save_every = 3;
  options.activations = Activations::kRecompute;
  EXPECT_EQ(error(options, tiny_deepseek()), "") << "these do not change the numbers";
  const auto other_data = std::make_shared<TokenBatches>(world_.domains(3000), 4, 24, 7);
  EXPECT_THAT(message_of<UsageError>([&] {
                Trainer(world_ / "run", tiny_deepseek(), tiny_options(), other_data,
                        world_.tokenizer);
              }),
              HasSubstr("domains.ah.tokens"));
}

TEST_F(TrainerTest, CorruptStatesAreNamed) {
  train_until("run", 5);
  const auto spoil = [&](const std::string& file, const std::string& text) {
    const std::string before = bytes("run", file);
    write_file(world_ / "run" / file, text);
    const std::string message = message_of<FormatError>([&] { make("run"); });
    write_file(world_ / "run" / file, before);
    return message;
  };
  const std::string counters = bytes("run", "state/trainer.json");
  const std::string moments = bytes("run", "state/moments.safetensors");
  EXPECT_THAT(spoil("state/trainer.json", counters.substr(0, 50)), HasSubstr("trainer.json"));
  EXPECT_THAT(spoil("state/trainer.json", "{}"), HasSubstr("trainer.json"));
  EXPECT_THAT(spoil("state/trainer.json", "[]"), HasSubstr("trainer.json"));
  EXPECT_THAT(spoil("state/moments.safetensors", moments.substr(0, moments.size() / 2)),
              HasSubstr("moments.safetensors"));
  EXPECT_THAT(spoil("state/weights.safetensors", moments),
              HasSubstr("weights.safetensors: tensor"));
  EXPECT_EQ(make("run").first_step(), 5);
}

TEST_F(TrainerTest, AModelWithoutStateIsNotOverwritten) {
  LanguageModel model(tiny_llama(), 1);
  save_checkpoint(world_ / "run", model, world_.tokenizer);
  EXPECT_THAT(message_of<UsageError>([&] { make("run"); }), HasSubstr("has no training state"));
}

TEST_F(TrainerTest, BadOptionsAreNamed) {
  const auto error = [&](void (*spoil)(TrainOptions&)) {
    TrainOptions options = tiny_options();
    const auto data = world_.batches(options.batch, options.length);
    spoil(options);
    return message_of<UsageError>(
        [&] { Trainer(world_ / "run", tiny_llama(), options, data, world_.tokenizer); });
  };
  EXPECT_THAT(error([](TrainOptions& o) { o.steps = 0; }), HasSubstr("steps is 0"));
  EXPECT_THAT(error([](TrainOptions& o) { o.batch = 0; }), HasSubstr("batch is 0"));
  EXPECT_THAT(error([](TrainOptions& o) { o.batch = 5; }), HasSubstr("4 x 24"));
  EXPECT_THAT(error([](TrainOptions& o) { o.accumulate = 0; }), HasSubstr("accumulate is 0"));
  EXPECT_THAT(error([](TrainOptions& o) { o.lr = 0; }), HasSubstr("lr is 0"));
  EXPECT_THAT(error([](TrainOptions& o) { o.lr = NAN; }), HasSubstr("lr is nan"));
  EXPECT_THAT(error([](TrainOptions& o) { o.warmup_steps = -1; }), HasSubstr("warmup_steps is -1"));
  EXPECT_THAT(error([](TrainOptions& o) { o.final_lr_share = 2; }), HasSubstr("final_lr_share"));
  EXPECT_THAT(error([](TrainOptions& o) { o.evaluate_sequences = 0; }),
              HasSubstr("evaluate_sequences is 0"));
  EXPECT_THAT(error([](TrainOptions& o) { o.save_every = -1; }), HasSubstr("save_every is -1"));
  EXPECT_THAT(error([](TrainOptions& o) { o.adamw.beta1 = 1; }), HasSubstr("beta1 is 1"));
}

TEST_F(TrainerTest, DataAndTokenizerMustFit) {
  const TrainOptions options = tiny_options();
  const auto data = world_.batches(options.batch, options.length);
  ModelConfig small = tiny_llama();
  small.vocabulary = 200;
  EXPECT_THAT(message_of<UsageError>(
                  [&] { Trainer(world_ / "run", small, options, data, world_.tokenizer); }),
              HasSubstr("the tokenizer has 257 tokens"));
  ModelConfig shorter = tiny_llama();
  shorter.max_positions = 16;
  EXPECT_THAT(message_of<UsageError>(
                  [&] { Trainer(world_ / "run", shorter, options, data, world_.tokenizer); }),
              HasSubstr("length (24) is more than the model's max_positions (16)"));
  const std::string_view text = "abababab";
  const Tokenizer other = Tokenizer::train(std::span(&text, 1), {.vocabulary = 258});
  ModelConfig fitting = tiny_llama();
  fitting.vocabulary = 258;
  EXPECT_THAT(
      message_of<UsageError>([&] { Trainer(world_ / "run", fitting, options, data, other); }),
      HasSubstr("encoded with another tokenizer"));
  write_file(world_ / "file", "");
  EXPECT_THROW(train("file"), IoError);
}

TEST(Evaluate, WeighsTokensAndDomains) {
  const TinyWorld world;
  LanguageModel model(tiny_llama(), 1);
  const Evaluation evaluation = evaluate(model, world.domains(), 3, 24, 5);
  ASSERT_EQ(evaluation.domains.size(), 2U);
  EXPECT_EQ(evaluation.domains[0].tokens, 5 * 24);
  EXPECT_NEAR(evaluation.domains[0].loss, std::log(257.0), 0.3) << "an untrained model guesses";
  EXPECT_DOUBLE_EQ(evaluation.mean, (evaluation.domains[0].loss + evaluation.domains[1].loss) / 2);
  EXPECT_THROW(evaluate(model, {}, 3, 24, 5), UsageError);
}

}  // namespace
}  // namespace cadre
