/// FactorLLM: a trained dense feed-forward layer cut into slices, and a router that learns from the
/// dense layer which of them to use.
///
/// Read from top to bottom: the dense model, its slices, the routers, fine-tuning, the baselines,
/// the engine and the kernel, the recipe.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "cadre/base/timer.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/objectives/prior_approx.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/top_k_router.h"
#include "cadre/training/checkpoint.h"
#include "cadre/training/optimizer.h"
#include "recipes/harness/engine_lm.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

using torch::Tensor;
using LayerPtr = std::shared_ptr<ExpertLayer>;

constexpr int64_t kSlices = 4;

// ---- The dense model, trained once with one seed: a byte-level language model.

struct Steps {
  int64_t base, tuning;
};
Steps steps(const ArmRun& run) { return run.smoke() ? Steps{40, 30} : Steps{600, 300}; }

ModelConfig dense_config(const ArmRun& run) {
  ModelConfig config = byte_lm_config();
  config.architecture = Architecture::kLlama;
  config.hidden = run.smoke() ? 32 : 64;
  config.layers = run.smoke() ? 1 : 3;
  config.intermediate = 4 * config.hidden;
  return config;
}

/// Passes on what a layer reads and keeps it.
class Recorder : public TokenLayer {
 public:
  explicit Recorder(std::shared_ptr<SwiGlu> layer) : dense(std::move(layer)) {}
  Tensor forward(const Tensor& hidden, LayerContext& context) override {
    read = hidden.detach().reshape({-1, hidden.size(2)});
    return dense->forward(hidden, context);
  }
  std::shared_ptr<SwiGlu> dense;
  Tensor read;  ///< [T, D]
};

struct Teacher {
  ScratchFolder folder;  ///< "dense"
  ByteLm lm;
  std::vector<std::shared_ptr<Recorder>> layers;
  double unigram = 0;  ///< bits a byte of the training text, each byte by itself
};

double unigram_bits(const ByteText& text) {
  Tensor counts = torch::zeros({kByteValues}, torch::kFloat64);
  for (int64_t step = 0; step < 50; ++step) {
    counts += torch::bincount(text.at(step).targets.view(-1), {}, kByteValues);
  }
  const Tensor shares = counts / counts.sum();
  return -(shares * shares.clamp_min(1e-12).log2()).sum().item<double>();
}

Teacher& teacher(const ArmRun& run) {
  static std::map<uint64_t, std::unique_ptr<Teacher>> kept;
  auto& all = kept[run.seed];
  if (all) return *all;
  ByteLmOptions options = {.steps = steps(run).base, .batch = 8};
  if (run.smoke() || !byte_text_is_here())
    options.domains = generated_byte_domains(run.seed, 1 << 15);
  all = std::make_unique<Teacher>();
  all->lm = train_byte_lm(run, dense_config(run), options);
  all->unigram = unigram_bits(*all->lm.text);
  save_byte_lm(all->folder / "dense", *all->lm.model);
  for (TransformerBlock& block : all->lm.model->decoder()->layers) {
    all->layers.push_back(std::make_shared<Recorder>(std::static_pointer_cast<SwiGlu>(block->mlp)));
    block->mlp = all->layers.back();
  }
  return *all;
}

double retention(const Teacher& all, double bits) {
  return (all.unigram - bits) / (all.unigram - all.lm.measured.values.at("bits_per_byte"));
}

// ---- Slices: `cadre factorize` on its checkpoint. Its down matrices hold the factor N, so that
// slices of weight 1 / k each sum to (N / k) times their sum.

Tensor dense_output(const SwiGlu& dense, const Tensor& x) {
  return swi_glu(x, dense.gate_proj->weight, dense.up_proj->weight, dense.down_proj->weight);
}

/// e_i [N, T, D], each a part of the dense layer's output.
Tensor slice_outputs(const ExpertLayer& layer, const Tensor& x) {
  std::vector<Tensor> outputs;
  for (int64_t e = 0; e < kSlices; ++e) {
    outputs.push_back(swi_glu(x, layer.gate_proj[e], layer.up_proj[e], layer.down_proj[e]) /
                      kSlices);
  }
  return torch::stack(outputs);
}

// ---- Routers: a matrix whose k largest scores choose slices of equal weight; or, for the bound,
// the labels themselves.

using Labels = std::function<Tensor(const Tensor& x)>;  // [T, N]

class SliceRouter : public Router {
 public:
  SliceRouter(Tensor matrix, int64_t k) : weight(std::move(matrix)), k_(k) {}
  Routing route(const RouteInput& input) override {
    const Tensor scores = oracle ? oracle(input.hidden) : cadre::linear(input.hidden, weight);
    Routing routing =
        routing_from_dense(kSlices, row_top_k(scores, k_),
                           torch::full({scores.size(0), k_}, 1 / static_cast<double>(k_)));
    routing.logits = scores;
    routing.probs = torch::softmax(scores, 1);
    return routing;
  }
  int64_t experts() const override { return kSlices; }

  Tensor weight;
  Labels oracle;

 private:
  int64_t k_;
};

/// The cut model of which k slices work.
struct Cut {
  std::unique_ptr<LanguageModel> model;
  std::vector<LayerPtr> layers;
  std::vector<std::shared_ptr<SliceRouter>> routers;
  std::vector<std::shared_ptr<Router>> stored;  ///< what the checkpoint has in the routers' place
  int64_t k;
};

/// The Switch balance loss, 0.01, for models that learn from this checkpoint.
void set_balance(const std::filesystem::path& folder) {
  const auto file = folder / "config.json";
  nlohmann::json config = parse_json(read_file(file), file.string());
  config["aux_loss_alpha"] = 0.01;
  config["seq_aux"] = false;
  write_file(file, config.dump(2));
}

Cut cut(const ArmRun& run, Teacher& all, int64_t k, const std::string& partition) {
  const auto folder = all.folder / fmt::format("cut-{}-{}", partition, k);
  reshape_lm("factorize", all.folder / "dense",
             {{"experts", kSlices},
              {"used", k},
              {"partition", partition},
              {"router", "random"},
              {"seed", run.seed}},
             folder);
  set_balance(folder);
  Cut result{.model = load_checkpoint(folder), .k = k};
  for (const auto& [index, layer] : result.model->expert_layers()) {
    const Tensor matrix = std::dynamic_pointer_cast<TopKRouter>(layer->gate)->weight;
    result.layers.push_back(layer);
    result.routers.push_back(std::make_shared<SliceRouter>(matrix, k));
    result.stored.push_back(layer->gate);
    layer->gate = result.routers.back();
  }
  return result;
}

Tensor labels_of(const Teacher& all, const Cut& cut, size_t layer, const Tensor& x) {
  const torch::NoGradGuard no_grad;
  return nearest_slices(dense_output(*all.layers[layer]->dense, x),
                        slice_outputs(*cut.layers[layer], x), cut.k);
}

// ---- Fine-tuning: the next byte's loss trains slices; the prior-approximate loss, on what the
// frozen dense model reads, trains routers. Everything else is frozen.

enum class Told { kNothing, kByDense };

constexpr double kPriorWeight = 0.05;

/// Those with one of the parts in their names.
NamedTensors parameters_with(LanguageModel& model, const std::vector<std::string>& parts) {
  NamedTensors chosen;
  for (auto& item : model.decoder()->named_parameters()) {
    const bool has = std::any_of(parts.begin(), parts.end(), [&](const std::string& part) {
      return item.key().find(part) != std::string::npos;
    });
    if (has) chosen.emplace_back(item.key(), item.value());
  }
  return chosen;
}

void freeze(LanguageModel& model) {
  for (Tensor& parameter : model.decoder()->parameters()) parameter.set_requires_grad(false);
}

void thaw(const NamedTensors& parameters) {
  for (const auto& [name, parameter] : parameters) Tensor(parameter).set_requires_grad(true);
}

constexpr AdamWOptions kAdam = {.weight_decay = 1e-5};

CosineSchedule schedule(const ArmRun& run, double lr) {
  const int64_t total = steps(run).tuning;
  return {.lr = lr, .warmup_steps = total / 10, .total_steps = total};
}

/// Sum over layers, on what the dense model reads of the batch.
Tensor prior_loss(Teacher& all, const Cut& cut, const Tensor& inputs) {
  all.lm.model->hidden_states(inputs);
  Tensor sum = torch::zeros({});
  for (size_t l = 0; l < cut.layers.size(); ++l) {
    const Tensor& x = all.layers[l]->read;
    sum = sum +
          prior_approximation(cadre::linear(x, cut.routers[l]->weight), labels_of(all, cut, l, x));
  }
  return sum;
}

void add_point(Curve& curve, int64_t step, double value) {
  curve.x.push_back(static_cast<double>(step + 1));
  curve.y.push_back(value);
}

Curve tune(const ArmRun& run, Teacher& all, Cut& cut, Told told) {
  freeze(*cut.model);
  const NamedTensors experts =
      parameters_with(*cut.model, {"mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"});
  const NamedTensors routers = parameters_with(*cut.model, {"mlp.gate.weight"});
  thaw(experts);
  if (told == Told::kByDense) thaw(routers);
  AdamW for_slices(experts, kAdam), for_routers(routers, kAdam);
  const double router_lr = run.smoke() ? 1e-2 : 1e-3;
  Curve curve;
  run.steps(steps(run).tuning, [&](int64_t step) {
    const TokenBatch batch = all.lm.text->at(steps(run).base + step);
    const int64_t total = steps(run).tuning;
    Tensor loss = cut.model->loss(batch.inputs, batch.targets, step, total).total;
    if (told == Told::kByDense) {
      const Tensor prior = prior_loss(all, cut, batch.inputs);
      add_point(curve, step, prior.item<double>());
      loss = loss + kPriorWeight * prior;
    }
    loss.backward();
    for_slices.step(schedule(run, 3e-4).at(step));
    if (told == Told::kByDense) for_routers.step(schedule(run, router_lr).at(step));
  });
  return curve;
}

/// Mean over layers and validation text of how many positives the routers find.
double agreement(Teacher& all, const Cut& cut) {
  const torch::NoGradGuard no_grad;
  double sum = 0, count = 0;
  for (const auto& batches : all.lm.validation) {
    for (const TokenBatch& batch : batches) {
      all.lm.model->hidden_states(batch.inputs);
      for (size_t l = 0; l < cut.layers.size(); ++l) {
        const Tensor& x = all.layers[l]->read;
        sum += label_agreement(cadre::linear(x, cut.routers[l]->weight), labels_of(all, cut, l, x));
        count += 1;
      }
    }
  }
  return sum / count;
}

// ---- In the engine: its chosen slices weigh softmax over the chosen. Scores a thousandth of their
// size choose the same slices, with weights of 1 / k each to three digits.

void save_for_engine(Cut& cut, const std::filesystem::path& folder) {
  const torch::NoGradGuard no_grad;
  for (size_t l = 0; l < cut.layers.size(); ++l) {
    cut.routers[l]->weight.mul_(1e-3);
    cut.layers[l]->gate = cut.stored[l];
  }
  save_byte_lm(folder, *cut.model);
}

void add_engine(Measurements& result, const std::filesystem::path& folder, const Teacher& all) {
  const InEngine found = measure_in_engine(folder, all.lm.validation);
  result.values["engine/bits"] = found.bits_per_byte;
  result.values["engine/speed"] = found.read_per_second / 1000;
  result.values["engine/active"] = 1000 * found.active_millions;
}

// ---- Arms.

void add_quality(Measurements& result, const Teacher& all, double bits) {
  result.values["bits"] = bits;
  result.values["retention"] = 100 * retention(all, bits);
}

Measurements measure_dense(const ArmRun& run) {
  Teacher& all = teacher(run);
  Measurements result;
  add_quality(result, all, all.lm.measured.values.at("bits_per_byte"));
  result.values["unigram"] = all.unigram;
  if (!run.smoke()) add_engine(result, all.folder / "dense", all);
  return result;
}

Measurements measure_all_slices(const ArmRun& run) {
  Teacher& all = teacher(run);
  const Cut whole = cut(run, all, kSlices, "contiguous");
  Measurements result;
  add_quality(result, all, bits_per_byte(*whole.model, all.lm));
  return result;
}

enum class Training { kNone, kLossOnly, kTold };

struct CutPlan {
  int64_t k;
  Training training;
  std::string partition = "contiguous";
};

Measurements measure_cut(const ArmRun& run, const CutPlan& plan) {
  Teacher& all = teacher(run);
  Cut model = cut(run, all, plan.k, plan.partition);
  Measurements result;
  const bool told = plan.training == Training::kTold && !run.sabotaged();
  if (plan.training != Training::kNone) {
    result.curves["prior"] = tune(run, all, model, told ? Told::kByDense : Told::kNothing);
  }
  add_quality(result, all, bits_per_byte(*model.model, all.lm));
  result.values["agreement"] = 100 * agreement(all, model);
  if (plan.training == Training::kLossOnly) return result;
  for (size_t l = 0; l < model.layers.size(); ++l) {
    model.routers[l]->oracle = [&, l](const Tensor& x) { return labels_of(all, model, l, x); };
  }
  result.values["oracle"] = bits_per_byte(*model.model, all.lm);
  if (plan.training == Training::kNone || run.smoke()) return result;
  const auto folder = all.folder / fmt::format("told-{}-{}", plan.partition, plan.k);
  save_for_engine(model, folder);
  add_engine(result, folder, all);
  return result;
}

/// The dense model with the k / N largest neurons, fine-tuned as long.
Measurements measure_pruned(const ArmRun& run, int64_t k) {
  Teacher& all = teacher(run);
  ModelConfig config = dense_config(run);
  config.intermediate = config.intermediate * k / kSlices;
  LanguageModel model(config, run.seed);
  const auto full = load_checkpoint(all.folder / "dense");
  std::map<std::string, Tensor> weights;
  for (const auto& [name, tensor] : full->named_weights()) weights[name] = tensor;
  const auto matrix = [&](size_t layer, const char* which) {
    return weights.at(fmt::format("model.layers.{}.mlp.{}_proj.weight", layer, which));
  };
  for (size_t l = 0; l < all.layers.size(); ++l) {
    const Tensor size =
        matrix(l, "gate").norm(2, 1) * matrix(l, "up").norm(2, 1) * matrix(l, "down").norm(2, 0);
    const Tensor kept = std::get<1>(size.topk(config.intermediate));
    for (const char* which : {"gate", "up", "down"}) {
      const std::string name = fmt::format("model.layers.{}.mlp.{}_proj.weight", l, which);
      weights[name] = weights[name].index_select(std::string(which) == "down" ? 1 : 0, kept);
    }
  }
  for (auto& [name, tensor] : model.named_weights()) Tensor(tensor).copy_(weights.at(name));
  freeze(model);
  const NamedTensors trained = parameters_with(model, {".mlp."});
  thaw(trained);
  AdamW adam(trained, kAdam);
  run.steps(steps(run).tuning, [&](int64_t step) {
    const TokenBatch batch = all.lm.text->at(steps(run).base + step);
    model.loss(batch.inputs, batch.targets, step, steps(run).tuning).total.backward();
    adam.step(schedule(run, 3e-4).at(step));
  });
  Measurements result;
  add_quality(result, all, bits_per_byte(model, all.lm));
  return result;
}

/// The kernels on a layer of 1024 x 4096: milliseconds for all tokens, the fastest of many.
Measurements measure_kernel(const ArmRun& run) {
  constexpr int64_t kWidth = 1024, kInner = 4096;
  const torch::NoGradGuard no_grad;
  const SwiGlu dense(kWidth, kInner);
  ExpertLayer sliced({.hidden = kWidth,
                      .inner = kInner / kSlices,
                      .experts = kSlices,
                      .router = {.k = 1, .weights = Weights::kNormalized}});
  sliced.eval();
  const auto fastest = [&](const std::function<void()>& work) {
    double best = 1e9;
    run.steps(20, [&](int64_t) {
      const Stopwatch watch;
      work();
      best = std::min(best, 1000 * watch.seconds());
    });
    return best;
  };
  Measurements result;
  for (const int64_t tokens : {64, 256}) {
    const Tensor x = torch::randn({1, tokens, kWidth});
    LayerContext context;
    const double of_dense = fastest([&] { dense_output(dense, x); });
    const double of_cut = fastest([&] { sliced.forward(x, context); });
    result.values[fmt::format("dense/{}", tokens)] = of_dense;
    result.values[fmt::format("cut/{}", tokens)] = of_cut;
    result.values[fmt::format("share/{}", tokens)] = of_cut / of_dense;
  }
  return result;
}

// ---- What counts.

double end_over_begin(const Results& results, uint64_t seed) {
  const auto& prior = results.curve("factorllm-2", seed, "prior").y;
  if (prior.empty()) return 1;
  const auto mean = [](auto first, auto last) {
    double sum = 0;
    for (auto at = first; at != last; ++at) sum += *at;
    return sum / static_cast<double>(last - first);
  };
  return mean(prior.end() - 3, prior.end()) / mean(prior.begin(), prior.begin() + 3);
}

void accept(Criterion& criterion) {
  criterion.every_seed(
      "bits a byte of all slices - dense",
      [](const At& at) { return std::abs(at("all", "bits") - at("dense", "bits")); },
      at_most(1e-4));
  if (criterion.smoke()) {
    const double fall = end_over_begin(criterion.results(), 1);
    criterion.every_seed(
        "prior loss at the end / at the beginning", [fall](const At&) { return fall; },
        at_most(0.8));
    return;
  }
  const auto ratio = [](const char* arm, const char* base) {
    return [=](const At& at) { return at(arm, "bits") / at(base, "bits"); };
  };
  criterion.on_means(
      "retention of factorllm-2, %", [](const At& at) { return at("factorllm-2", "retention"); },
      at_least(85));
  criterion.on_means("bits of factorllm-2 / loss-only-2", ratio("factorllm-2", "loss-only-2"),
                     at_most(0.995));
  criterion.on_means("bits of factorllm-2 / random-2", ratio("factorllm-2", "random-2"),
                     at_most(0.95));
  for (const int64_t k : {2, 1}) {
    criterion.on_means(
        fmt::format("agreement of factorllm-{} beyond chance, points", k),
        [k](const At& at) {
          return at(fmt::format("factorllm-{}", k), "agreement") - 100.0 * k / kSlices;
        },
        at_least(15));
  }
  for (const char* share : {"share/64", "share/256"}) {
    criterion.on_means(
        fmt::format("time of one slice of four / dense, {}", share),
        [share](const At& at) { return at("kernel", share); }, at_most(0.45));
  }
}

std::vector<std::string> remarks(const Results& results) {
  if (results.setting().size == Size::kSmoke) return {};
  return {fmt::format("Bytes by themselves take {:.3f} bits; retention is the share of the dense "
                      "model's gain over that.",
                      results.mean("dense", "unigram")),
          "agreement: positives among the k slices chosen, on held-out text; chance is 50 and 25 "
          "%. oracle: the labels themselves choose."};
}

std::vector<Picture> pictures(const Results& results) {
  if (results.setting().size == Size::kSmoke) return {};
  return {
      {"prior.svg", LineChart{.title = "prior-approximate loss, sum over layers",
                              .x_label = "step",
                              .y_label = "loss",
                              .series = results.series({"factorllm-2", "factorllm-1"}, "prior")}}};
}

Arm cut_arm(const std::string& name, const std::string& help, const CutPlan& plan) {
  return {name, help, [plan](const ArmRun& run) { return measure_cut(run, plan); }};
}

}  // namespace

Recipe factorllm(const Setting& setting) {
  using enum Training;
  Recipe recipe = {
      .stub = "routers are told nothing: slices learn under random routers",
      .arms = {{"dense", "the model that is cut", measure_dense},
               {"all", "all four slices work", measure_all_slices},
               cut_arm("factorllm-2", "two slices, routers told by the dense layers, slices tuned",
                       {2, kTold})},
      .tables = {{.title = "Byte-level language model, 4 slices",
                  .columns = {{"bits", "bits a byte", 3}, {"retention", "retention, %", 1}}}},
      .accept = accept,
      .pictures = pictures,
      .remarks = remarks};
  if (setting.size == Size::kSmoke) return recipe;
  for (const int64_t k : {2, 1}) {
    const std::string n = k == 2 ? "two slices" : "one slice";
    const auto named = [k](const char* name) { return fmt::format("{}-{}", name, k); };
    if (k == 1) {
      recipe.arms.push_back(cut_arm(named("factorllm"), n + ", as factorllm-2", {1, kTold}));
    }
    recipe.arms.push_back(
        cut_arm(named("random"), n + ", random routers, no training", {k, kNone}));
    recipe.arms.push_back(cut_arm(named("loss-only"),
                                  n + ", random routers, slices tuned (the released script)",
                                  {k, kLossOnly}));
    recipe.arms.push_back({named("pruned"), "the largest neurons of the same number, tuned",
                           [k](const ArmRun& run) { return measure_pruned(run, k); }});
  }
  recipe.arms.push_back(cut_arm("kmeans-2", "factorllm-2 with slices of neurons that open together",
                                {2, kTold, "kmeans"}));
  recipe.tables[0].columns = {
      {"bits", "bits a byte", 3},         {"retention", "retention, %", 1},
      {"agreement", "agreement, %", 1},   {"oracle", "oracle: bits", 3},
      {"engine/bits", "engine: bits", 3}, {"engine/speed", "engine: kB/s", 1}};
  for (const Arm& arm : recipe.arms) recipe.tables[0].arms.push_back(arm.name);
  recipe.arms.push_back({.name = "kernel",
                         .help = "a layer of 1024 x 4096 with random weights, one slice of four",
                         .measure = measure_kernel,
                         .seeds = 1});
  recipe.tables.push_back({.title = "One slice of four in the kernel, milliseconds",
                           .arms = {"kernel"},
                           .columns = {{"dense/64", "dense, 64 tokens", 2},
                                       {"cut/64", "cut", 2},
                                       {"share/64", "share", 3},
                                       {"dense/256", "dense, 256 tokens", 2},
                                       {"cut/256", "cut", 2},
                                       {"share/256", "share", 3}}});
  return recipe;
}

}  // namespace cadre::recipes
