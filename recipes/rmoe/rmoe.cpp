/// RMoE: a recurrent cell, shared by all layers and run over depth, tells every layer's router what
/// the routers below it decided.
///
/// Read from top to bottom: the task, the net, what is measured, the language model, the recipe.

#include <cmath>

#include "cadre/data/routing_memory.h"
#include "cadre/routing/recurrent_router.h"
#include "cadre/routing/top_k_router.h"
#include "recipes/harness/byte_lm.h"
#include "recipes/harness/small_moe.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

// ---- The task: a tag decides the right expert of every layer, and only the first layer sees it.

constexpr int64_t kTags = 8, kWidth = 12, kLayers = 4;
constexpr int64_t kBatch = 512, kTestRows = 8192;
constexpr uint64_t kTestBatch = 1'000'000;  // an index that no training step has

// ---- The net: x <- x + sum of weight * expert(x), four times; one expert a sample.

constexpr int64_t kExperts = 8, kInner = 16, kState = 16;
constexpr double kBalance = 0.001;

enum class Kind { kPlain, kRecurrent, kNotPassing, kDetached };

Memory memory_of(Kind kind) {
  if (kind == Kind::kNotPassing) return Memory::kNone;
  return kind == Kind::kDetached ? Memory::kDetached : Memory::kFull;
}

class Net : public torch::nn::Module {
 public:
  explicit Net(Kind kind) {
    std::shared_ptr<RecurrentCell> cell;
    for (int64_t i = 0; i < kLayers; ++i) {
      layers.push_back(std::make_shared<SmallMoe>(
          SmallMoeOptions{
              .experts = {.in = kWidth, .inner = kInner, .out = kWidth, .experts = kExperts},
              .objectives = {balance_expert(kBalance)}},
          make_router(kind, i == 0 ? kWidth + kTags : kWidth, cell)));
      register_module(std::to_string(i), layers.back());
    }
  }

  torch::Tensor forward(const RoutingMemoryBatch& batch) {
    torch::Tensor x = batch.z, state;
    aux = torch::zeros({});
    for (int64_t i = 0; i < kLayers; ++i) {
      const auto seen = i == 0 ? torch::cat({batch.z, batch.tag_hot}, 1) : x;
      x = x + layers[i]->forward(x, {.hidden = seen, .state = state, .layer = i});
      state = layers[i]->routing.state;
      aux = aux + layers[i]->aux;
    }
    return x;
  }

  /// |d last router's weights / d what the first router's projection is|, when routers can only
  /// speak through their state: what the layers compute is cut off.
  double gradient_over_depth(const RoutingMemoryBatch& batch) {
    const auto first = std::dynamic_pointer_cast<RecurrentRouter>(layers[0]->router);
    if (!first) return 0;
    torch::Tensor seen = torch::cat({batch.z, batch.tag_hot}, 1), x = batch.z, state;
    Routing last;
    for (int64_t i = 0; i < kLayers; ++i) {
      last = layers[i]->router->route({.hidden = i == 0 ? seen : x, .state = state, .layer = i});
      state = last.state;
      x = (x + layers[i]->routed(x, last)).detach();
    }
    const auto gradient = torch::autograd::grad({last.weight.sum()}, {first->proj}, {}, false,
                                                false, /*allow_unused=*/true)[0];
    return gradient.defined() ? gradient.norm().item<double>() : 0;
  }

  std::vector<std::shared_ptr<SmallMoe>> layers;
  torch::Tensor aux;

 private:
  /// The first recurrent router makes the cell that the others share.
  static std::shared_ptr<Router> make_router(Kind kind, int64_t width,
                                             std::shared_ptr<RecurrentCell>& cell) {
    // As LibTorch's linear layers begin, for all arms.
    const double std = 1 / std::sqrt(3.0 * static_cast<double>(width));
    // Top-1 by the raw probability: a normalised weight would be 1 and teach the router nothing.
    if (kind == Kind::kPlain) {
      const TopK options = {.k = 1, .weights = Weights::kRaw, .init_std = std};
      return std::make_shared<TopKRouter>(width, kExperts, options);
    }
    const Recurrent options = {.k = 1,
                               .width = kState,
                               .memory = memory_of(kind),
                               .weights = Weights::kRaw,
                               .init_std = std};
    const auto router = std::make_shared<RecurrentRouter>(width, kExperts, options, cell);
    cell = router->cell;
    return router;
  }
};

// ---- What is measured.

/// Mutual information in nats of two lists of small integers; at most ln 8 = 2.08 here.
double mutual_information(const torch::Tensor& a, const torch::Tensor& b, int64_t values) {
  const auto joint = torch::bincount(a * values + b, {}, values * values)
                         .view({values, values})
                         .to(torch::kFloat64) /
                     static_cast<double>(a.numel());
  const auto independent = joint.sum(1, true) * joint.sum(0, true);
  return torch::xlogy(joint, joint / independent.clamp_min(1e-300)).sum().item<double>();
}

void measure_information(const std::vector<torch::Tensor>& chosen, const torch::Tensor& tag,
                         Measurements& result) {
  for (size_t i = 0; i < chosen.size(); ++i) {
    const std::string layer = std::to_string(i + 1);
    result.values["tag_" + layer] = mutual_information(tag, chosen[i], kExperts);
    if (i > 0) {
      result.values["pair_" + layer] = mutual_information(chosen[i - 1], chosen[i], kExperts);
    }
  }
}

Measurements measure(const ArmRun& run, Kind kind) {
  const RoutingMemory task({.tags = kTags, .width = kWidth, .layers = kLayers}, run.seed);
  Net net(kind);
  Measurements result;
  result.curves["loss"] = fit(run, net, {.steps = run.smoke() ? 150 : 1500}, [&](int64_t step) {
    const auto batch = task.batch(kBatch, step);
    return (net.forward(batch) - batch.y).square().mean() + net.aux;
  });
  const auto test = task.batch(kTestRows, kTestBatch);
  result.values["gradient"] = net.gradient_over_depth(test);
  const torch::NoGradGuard no_grad;
  result.values["nmse"] = normalized_error(net.forward(test), test.y);
  std::vector<torch::Tensor> chosen;
  for (const auto& layer : net.layers) chosen.push_back(layer->routing.expert.to(torch::kInt64));
  measure_information(chosen, test.tag, result);
  return result;
}

// ---- The recipe.

double ratio(const At& at, const char* arm, const char* other) {
  return at(arm, "nmse") / at(other, "nmse");
}

/// Routers hear of each other through their state, or not at all.
void accept_gradients(Criterion& criterion) {
  criterion.every_seed(
      "gradient from the last router to the first, RMoE",
      [](const At& at) { return at("rmoe", "gradient"); }, at_least(1e-9));
  for (const char* arm : {"np", "detach"}) {
    criterion.every_seed(
        std::string("the same, ") + arm, [arm](const At& at) { return at(arm, "gradient"); },
        at_most(0));
  }
}

void accept(Criterion& criterion) {
  accept_gradients(criterion);
  if (criterion.smoke()) return;
  const auto against = [](const char* other) {
    return [other](const At& at) { return ratio(at, "rmoe", other); };
  };
  criterion.every_seed("NMSE of RMoE / SMoE", against("smoe"), at_most(0.92));
  criterion.every_seed("NMSE of RMoE / NP", against("np"), at_most(0.97));
  criterion.on_means("mean NMSE of RMoE / SMoE", against("smoe"), at_most(0.87));
  criterion.on_means("mean NMSE of RMoE / NP", against("np"), at_most(0.93));
  criterion.every_seed(
      "information on the tag in layer 2, RMoE", [](const At& at) { return at("rmoe", "tag_2"); },
      at_least(1.0));
  for (const char* arm : {"smoe", "np"}) {
    criterion.every_seed(
        std::string("the same, ") + arm, [arm](const At& at) { return at(arm, "tag_2"); },
        at_most(0.5));
  }
}

Arm arm(const char* name, const char* help, Kind kind) {
  return {.name = name, .help = help, .measure = [kind](const ArmRun& run) {
            // The stub: the cell forgets its state.
            const bool forgets = run.sabotaged() && kind == Kind::kRecurrent;
            return measure(run, forgets ? Kind::kNotPassing : kind);
          }};
}

std::vector<Picture> pictures(const Results& results) {
  return {
      {"loss.svg", LineChart{.title = "training loss",
                             .x_label = "step",
                             .y_label = "loss",
                             .series = results.series({"smoe", "rmoe", "np", "detach"}, "loss")}}};
}

}  // namespace

Recipe rmoe(const Setting&) {
  return {
      .stub = "the recurrent cell forgets its state at every layer",
      .arms = {arm("smoe", "a linear router a layer, each on its own input", Kind::kPlain),
               arm("rmoe", "one GRU over depth before the routers", Kind::kRecurrent),
               arm("np", "the same parameters, the state is not passed on", Kind::kNotPassing),
               arm("detach", "the state is passed on without its gradient", Kind::kDetached)},
      .tables = {{.title =
                      "Error, and how much a layer's expert says of the tag (nats, at most 2.08)",
                  .columns = {{"nmse", "NMSE"},
                              {"tag_1", "layer 1", 2},
                              {"tag_2", "layer 2", 2},
                              {"tag_3", "layer 3", 2},
                              {"tag_4", "layer 4", 2}}},
                 {.title = "How much a layer's expert says of the expert below (nats)",
                  .columns = {{"pair_2", "layers 1-2", 2},
                              {"pair_3", "layers 2-3", 2},
                              {"pair_4", "layers 3-4", 2},
                              {"gradient", "gradient over depth", 4}}}},
      .accept = accept,
      .pictures = pictures};
}

}  // namespace cadre::recipes
