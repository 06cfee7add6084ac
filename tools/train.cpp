/// cadre train: one language model on text in domains, from fresh weights or from a checkpoint.

#include <iostream>

#include "cadre/base/error.h"
#include "cadre/base/interrupt.h"
#include "cadre/base/main.h"
#include "cadre/base/memory.h"
#include "cadre/base/timer.h"
#include "cadre/base/units.h"
#include "cadre/formats/file.h"
#include "cadre/training/trainer.h"
#include "tools/common/domain_tokens.h"
#include "tools/common/json_text.h"
#include "tools/common/learn_options.h"
#include "tools/common/results.h"

namespace {

using namespace cadre;
namespace fs = std::filesystem;

struct Options {
  fs::path out = "run";
  std::string from;
  ModelConfig model = {
      .experts = 16, .experts_per_token = 2, .expert_intermediate = 256, .shared_experts = 1};
  TrainOptions training;
  PreparationOptions data;
  bool json = false;
  bool profile = false;
};

void add_options(CommandLine& line, Options& options) {
  line.add(kOutputGroup, "--out", options.out, "Folder for everything: model/, data/, train.toml");
  line.add_flag(kOutputGroup, "--json", options.json, "Print the result as JSON");
  line.add_flag(kOutputGroup, "--profile", options.profile,
                "Print where the time went: own shares by section, on stderr");
  line.add(kTrainingGroup, "--from", options.from,
           "Start from this checkpoint's weights, shape and tokenizer instead of fresh ones");
  add_preparation_options(line, options.data);
  add_model_options(line, options.model);
  add_training_options(line, options.training);
}

/// The text as the run needs it. A model that is under way goes on with the text it has.
PreparedData prepare(const Options& options) {
  const bool under_way = fs::exists(options.out / "model" / "state");
  return prepare_data(options.out / "data", options.data, options.training.length,
                      under_way ? ChangedText::kKeep : ChangedText::kPrepareAgain);
}

void print_result(const Options& options, const TrainResult& result) {
  if (options.json) {
    std::cout << pretty(to_json(result));
  } else {
    std::cout << losses_table({{"model", result.validation}}).str();
    std::cout << fmt::format("{} steps, {} tokens, {}; the model is in {}\n", result.steps,
                             format_count(static_cast<double>(result.tokens)),
                             format_duration(result.train_seconds),
                             (options.out / "model").string());
  }
}

int train(Options& options, const std::string& resolved) {
  std::unique_ptr<LanguageModel> initial;
  if (!options.from.empty()) {
    initial = load_checkpoint(options.from, options.training.activations);
    options.model = initial->config();
    options.data.tokenizer = options.from;
  } else {
    ModelConfig probe = options.model;
    probe.vocabulary = options.data.vocabulary;
    probe.validate();  // before minutes go into preparing text
  }
  check_draws(options.training, options.model.router);
  const PreparedData data = prepare(options);
  if (options.from.empty()) {
    options.model.vocabulary = data.tokenizer.vocabulary_size();
    options.model.end_of_text = data.tokenizer.end_of_text();
  }
  const auto batches = std::make_shared<TokenBatches>(
      open_domains(data), options.training.batch, options.training.length, options.training.seed);
  Trainer trainer(options.out / "model", options.model, options.training, batches, data.tokenizer,
                  std::move(initial));
  write_file(options.out / "train.toml", resolved);
  install_interrupt_handlers();
  const TrainResult result = run_with_display(trainer, "train", options.training.steps);
  if (options.profile) std::cerr << Profile::global().table();
  if (result.end == TrainResult::End::kInterrupted) return interrupt_exit_code();
  print_result(options, result);
  return 0;
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line(
      "train",
      "Ctrl-C saves; the same command goes on, with the same numbers as an uninterrupted run.");
  line.accept_config_file();
  add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;
  return train(options, line.resolved_toml());
}

}  // namespace

int main(int argc, char** argv) {
  cadre::keep_freed_memory();
  return cadre::run_main("train", [&] { return run(argc, argv); });
}
