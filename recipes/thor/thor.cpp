/// THOR: experts drawn by lot instead of a gate, and a consistency loss that teaches them to agree.
///
/// Read from top to bottom: the task, the net, training, what is measured, the recipe.

#include <cmath>

#include "cadre/data/labelled.h"
#include "cadre/nn/norm.h"
#include "cadre/objectives/consistency.h"
#include "cadre/objectives/cross_entropy.h"
#include "cadre/routing/stochastic_router.h"
#include "cadre/routing/top_k_router.h"
#include "recipes/harness/small_moe.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

// ---- The task: 300 handwritten digits, a fifth of their labels drawn anew; 1497 clean ones for
// the test. Few rows and wrong labels: a net learns them by heart unless something holds it back.

constexpr int64_t kTrainRows = 300, kBatch = 50;
constexpr double kNoise = 0.2;

TrainAndTest task(const ArmRun& run, double noise) {
  auto digits = split_rows(load_digits(run.data), kTrainRows, run.seed);
  if (noise > 0) digits.train = with_label_noise(digits.train, noise, run.seed);
  return digits;
}

// ---- The net: a linear layer, two residual blocks of experts, a linear layer.

constexpr int64_t kWidth = 64, kBlocks = 2, kExperts = 4;

enum class Gate { kDense, kSwitch, kStochastic };

class Net : public torch::nn::Module {
 public:
  Net(Gate gate, int64_t inputs, int64_t classes)
      : in_(register_module("in", torch::nn::Linear(inputs, kWidth))),
        out_(register_module("out", torch::nn::Linear(kWidth, classes))),
        norm_(register_module("norm", std::make_shared<LayerNormImpl>(kWidth))) {
    const int64_t experts = gate == Gate::kDense ? 1 : kExperts;
    for (int64_t i = 0; i < kBlocks; ++i) {
      SmallMoeOptions options = {.experts = {.in = kWidth,
                                             .inner = kWidth,
                                             .out = kWidth,
                                             .experts = experts,
                                             .activation = Activation::kRelu}};
      if (gate == Gate::kSwitch) options.objectives = {balance_expert(0.01)};
      blocks.push_back(std::make_shared<SmallMoe>(options, router_of(gate, experts)));
      norms_.push_back(std::make_shared<LayerNormImpl>(kWidth));
      register_module("block" + std::to_string(i), blocks.back());
      register_module("norm" + std::to_string(i), norms_.back());
    }
  }

  /// Logits. `how` says which draw this is, and how many experts work (the knob k).
  torch::Tensor forward(const torch::Tensor& rows, RouteInput how = {}) {
    auto x = in_->forward(rows);
    aux = torch::zeros({});
    for (int64_t i = 0; i < kBlocks; ++i) {
      how.layer = i;
      x = x + blocks[i]->forward(norms_[i]->forward(x), how);
      aux = aux + blocks[i]->aux;
    }
    return out_->forward(norm_->forward(x));
  }

  std::vector<std::shared_ptr<SmallMoe>> blocks;
  torch::Tensor aux;

 private:
  static std::shared_ptr<Router> router_of(Gate gate, int64_t experts) {
    if (gate == Gate::kSwitch) {
      return std::make_shared<TopKRouter>(kWidth, experts, TopK{.k = 1, .weights = Weights::kRaw});
    }
    // One expert for a whole batch in training, one for each row in the test.
    return std::make_shared<StochasticRouter>(
        experts, StochasticExperts{.train = DrawScope::kBatch, .eval = DrawScope::kToken});
  }

  torch::nn::Linear in_, out_;
  std::shared_ptr<LayerNormImpl> norm_;
  std::vector<std::shared_ptr<LayerNormImpl>> norms_;
};

// ---- Training: one pass over a batch, or two with different draws and a * consistency.

struct Method {
  Gate gate;
  int64_t passes = 1;
  double consistency = 0;
  double noise = kNoise;
};

Curve train(const ArmRun& run, const Method& method, const LabelledRows& rows, Net& net) {
  constexpr int64_t kEpochs = 150, kSmokeEpochs = 8;
  const int64_t batches = rows.size() / kBatch;
  const int64_t steps = batches * (run.smoke() ? kSmokeEpochs : kEpochs);
  torch::Tensor order;
  return fit(run, net, {.steps = steps, .lr = 1e-3}, [&](int64_t step) {
    if (step % batches == 0) order = shuffled(rows.size(), run.seed, step / batches);
    const auto batch = rows.at(order.narrow(0, step % batches * kBatch, kBatch));
    const auto pass = [&](int64_t draw) {
      return net.forward(batch.x, {.step = step, .seed = run.seed, .draw = draw});
    };
    const auto logits = pass(0);
    if (method.passes == 1) {
      return torch::nn::functional::cross_entropy(logits, batch.y) + net.aux;
    }
    return consistency_loss(logits, pass(1), batch.y, {.coefficient = method.consistency});
  });
}

// ---- What is measured, on the clean rows.

double accuracy(const torch::Tensor& logits, const torch::Tensor& y) {
  return 100 * (logits.argmax(1) == y).to(torch::kFloat64).mean().item<double>();
}

Measurements measure(const ArmRun& run, const Method& method) {
  const TrainAndTest digits = task(run, method.noise);
  Net net(method.gate, digits.train.x.size(1), digits.train.classes);
  Measurements result;
  result.curves["loss"] = train(run, method, digits.train, net);

  const torch::NoGradGuard no_grad;
  const auto path = [&](int64_t draw) {
    return net.forward(digits.test.x, {.seed = run.seed, .draw = draw});
  };
  const auto one = path(0), other = path(1);
  result.values = {
      {"accuracy", accuracy(one, digits.test.y)},
      {"nll", torch::nn::functional::cross_entropy(one, digits.test.y).item<double>()},
      {"disagreement",
       100 * (one.argmax(1) != other.argmax(1)).to(torch::kFloat64).mean().item<double>()},
      {"divergence", symmetric_kl(one, other).item<double>()}};
  RouteInput all;
  if (method.gate == Gate::kStochastic) all.knobs.k = kExperts;
  result.values["accuracy_of_mean"] = accuracy(net.forward(digits.test.x, all), digits.test.y);
  return result;
}

// ---- The recipe.

double difference(const At& at, const char* arm, const char* other) {
  return at(arm, "accuracy") - at(other, "accuracy");
}

/// After a few epochs accuracy says nothing yet, but the passes already agree more.
void accept_smoke(Criterion& criterion) {
  criterion.every_seed(
      "divergence of two paths, THOR a=5 / a=0",
      [](const At& at) { return at("thor_5", "divergence") / at("two_passes", "divergence"); },
      at_most(0.9));
  for (const char* arm : {"two_passes", "thor_5"}) {
    criterion.every_seed(
        std::string("divergence of ") + arm, [arm](const At& at) { return at(arm, "divergence"); },
        at_least(0));
  }
}

void accept(Criterion& criterion) {
  if (criterion.smoke()) return accept_smoke(criterion);
  criterion.on_means(
      "accuracy of THOR a=5 - Switch",
      [](const At& at) { return difference(at, "thor_5", "switch"); }, at_least(3));
  criterion.on_means(
      "accuracy of THOR a=5 - two passes, a=0",
      [](const At& at) { return difference(at, "thor_5", "two_passes"); }, at_least(3));
  criterion.on_means(
      "NLL of THOR a=5 / two passes, a=0",
      [](const At& at) { return at("thor_5", "nll") / at("two_passes", "nll"); }, at_most(0.85));
  criterion.on_means(
      "disagreement of THOR a=5 / two passes, a=0",
      [](const At& at) { return at("thor_5", "disagreement") / at("two_passes", "disagreement"); },
      at_most(0.65));
  criterion.on_means(
      "accuracy of random - Switch, clean labels",
      [](const At& at) { return difference(at, "random_clean", "switch_clean"); }, at_least(-0.5));
}

Arm arm(const char* name, const char* help, const Method& method) {
  return {.name = name, .help = help, .measure = [method](const ArmRun& run) {
            Method used = method;
            if (run.sabotaged()) used.consistency = 0;
            return measure(run, used);
          }};
}

}  // namespace

Recipe thor(const Setting&) {
  const std::vector<std::string> noisy = {"dense",      "switch", "random",
                                          "two_passes", "thor_1", "thor_5"};
  const std::vector<Column> columns = {{"accuracy", "accuracy %", 1},
                                       {"nll", "NLL"},
                                       {"accuracy_of_mean", "all experts, accuracy %", 1},
                                       {"disagreement", "two paths differ %", 1},
                                       {"divergence", "symmetric KL", 4}};
  return {
      .stub = "the consistency term is left out (a = 0)",
      .arms = {arm("dense", "one expert, no choice", {.gate = Gate::kDense}),
               arm("switch", "a learned gate, top-1, balance 0.01", {.gate = Gate::kSwitch}),
               arm("random", "experts by lot, one pass", {.gate = Gate::kStochastic}),
               arm("two_passes", "experts by lot, two passes, no consistency (a = 0)",
                   {.gate = Gate::kStochastic, .passes = 2}),
               arm("thor_1", "two passes, a = 1",
                   {.gate = Gate::kStochastic, .passes = 2, .consistency = 1}),
               arm("thor_5", "two passes, a = 5",
                   {.gate = Gate::kStochastic, .passes = 2, .consistency = 5}),
               arm("switch_clean", "Switch on clean labels", {.gate = Gate::kSwitch, .noise = 0}),
               arm("random_clean", "experts by lot, one pass, on clean labels",
                   {.gate = Gate::kStochastic, .noise = 0})},
      .tables = {{.title = "A fifth of the labels wrong; one expert by lot for each row",
                  .arms = noisy,
                  .columns = columns},
                 {.title = "Clean labels",
                  .arms = {"switch_clean", "random_clean"},
                  .columns = columns}},
      .accept = accept,
      .pictures = [](const Results& results) {
        return std::vector<Picture>{
            {"loss.svg", LineChart{.title = "training loss",
                                   .x_label = "step",
                                   .y_label = "loss",
                                   .series = results.series(
                                       {"switch", "random", "two_passes", "thor_5"}, "loss")}}};
      }};
}

}  // namespace cadre::recipes
