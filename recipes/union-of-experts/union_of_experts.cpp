/// Union of Experts: MLP and attention cut into parts whose sum is the dense block, of which each
/// token uses half.
///
/// Read from top to bottom: exactness, the task, the blocks, what they cost, training, the recipe.

#include <fmt/format.h>

#include <cmath>

#include "cadre/data/labelled.h"
#include "cadre/experts/attention_experts.h"
#include "cadre/experts/combine.h"
#include "cadre/experts/partition.h"
#include "cadre/nn/attention.h"
#include "cadre/nn/norm.h"
#include "cadre/nn/parameters.h"
#include "cadre/objectives/routing_objective.h"
#include "cadre/routing/patch_choice_router.h"
#include "cadre/routing/top_k_router.h"
#include "recipes/harness/small_moe.h"
#include "recipes/recipes.h"

namespace cadre::recipes {
namespace {

// ---- Part A: the sum of all parts is the dense block, in values and gradients.

constexpr int64_t kWidth = 64, kInner = 128, kHeads = 4, kHeadDim = kWidth / kHeads;
constexpr int64_t kTokens = 16;

Routing everybody(int64_t tokens, int64_t experts) {
  return routing_from_dense(experts, torch::arange(experts).expand({tokens, experts}),
                            torch::ones({tokens, experts}));
}

/// Largest differences of two functions of x and of their gradients.
void compare(const std::string& name, const torch::Tensor& x, const torch::Tensor& got,
             const torch::Tensor& want, Measurements& result) {
  const auto mix = torch::randn_like(got);
  const auto gradient = [&](const torch::Tensor& y) {
    return torch::autograd::grad({(y * mix).sum()}, {x})[0];
  };
  const auto most = [](const torch::Tensor& a, const torch::Tensor& b) {
    return (a - b).abs().max().item<double>();
  };
  auto& values = result.values;
  values[name] = std::max(values[name], most(got, want));
  values[name + "_gradient"] =
      std::max(values[name + "_gradient"], most(gradient(got), gradient(want)));
}

void check_mlp(int64_t n, Measurements& result) {
  const DenseMlp dense = {.up = torch::randn({kInner, kWidth}) / 8,
                          .up_bias = torch::randn({kInner}) / 8,
                          .down = torch::randn({kWidth, kInner}) / 11,
                          .down_bias = torch::randn({kWidth}) / 8};
  const UnionMlp parts = partition(dense, n);
  const DenseMlp back = fuse(parts);
  const bool same = torch::equal(back.up, dense.up) && torch::equal(back.down, dense.down) &&
                    torch::equal(back.up_bias, dense.up_bias) &&
                    torch::equal(back.down_bias, dense.down_bias);
  result.values["not_fused_back"] += same ? 0 : 1;
  ExpertMlp experts({.in = kWidth, .inner = kInner / n, .out = kWidth, .experts = n});
  experts.up = parts.up;
  experts.up_bias = parts.up_bias;
  experts.down = parts.down;
  experts.down_bias = torch::zeros({n, kWidth});
  const auto x = torch::randn({kTokens, kWidth}).requires_grad_();
  const auto inner =
      activate(cadre::linear(x, dense.up, dense.up_bias), experts.options().activation);
  compare("mlp", x, experts.forward(x, everybody(kTokens, n)) + parts.down_bias,
          cadre::linear(inner, dense.down, dense.down_bias), result);
}

void check_attention(int64_t n, Measurements& result) {
  const torch::NoGradGuard no_grad;
  Attention dense(
      AttentionOptions{
          .hidden = kWidth, .heads = kHeads, .mask = kernels::Mask::kNone, .init_std = 0.125},
      nullptr);
  const DenseAttention weights = {.q = dense->q_proj->weight,
                                  .k = dense->k_proj->weight,
                                  .v = dense->v_proj->weight,
                                  .o = dense->o_proj->weight};
  const UnionAttention parts = partition(weights, kHeads, n);
  const DenseAttention back = fuse(parts);
  const bool same = torch::equal(back.q, weights.q) && torch::equal(back.k, weights.k) &&
                    torch::equal(back.v, weights.v) && torch::equal(back.o, weights.o);
  result.values["not_fused_back"] += same ? 0 : 1;
  AttentionExperts experts(
      {.hidden = kWidth, .experts = n, .heads = kHeads / n, .head_dim = kHeadDim});
  experts.q_proj.copy_(parts.q);
  experts.k_proj.copy_(parts.k);
  experts.v_proj.copy_(parts.v);
  experts.o_proj.copy_(parts.o);
  const torch::AutoGradMode with_gradient(true);
  const auto x = torch::randn({2, kTokens, kWidth}).requires_grad_();
  compare("attention", x, experts.forward(x, everybody(2 * kTokens, n)), dense->forward(x, {}),
          result);
}

Measurements measure_exactness(const ArmRun&) {
  Measurements result;
  for (const char* name :
       {"mlp", "mlp_gradient", "attention", "attention_gradient", "not_fused_back"}) {
    result.values[name] = 0;
  }
  for (const int64_t n : {2, 4, 8}) check_mlp(n, result);
  for (const int64_t n : {2, 4}) check_attention(n, result);
  return result;
}

// ---- Part B, the task: digits of 8x8 pixels as 16 patches of 2x2.

constexpr int64_t kTrainRows = 1300, kBatch = 64, kPatch = 4;

/// [N, 64] pixels as [N, 16, 4].
torch::Tensor patches(const torch::Tensor& pixels) {
  return pixels.view({-1, 4, 2, 4, 2}).permute({0, 1, 3, 2, 4}).reshape({-1, kTokens, kPatch});
}

// ---- The blocks.

constexpr int64_t kExperts = 4, kKept = 2;

enum class Kind { kDense, kHalf, kSwitch, kUnion };

struct Model {
  Kind kind;
  Combine combine = Combine::kScaledSum;
};

/// What a block did to a batch, for counting.
struct Work {
  double multiply_adds = 0;      ///< of the whole batch
  int64_t fewest = 0, most = 0;  ///< tokens of a sequence that one MLP expert read
};

/// Tokens that each expert takes of each sequence, [B, E] int64.
torch::Tensor taken(const Routing& routing) {
  const auto token = torch::repeat_interleave(routing.offsets.diff());
  const auto cell = token.div(kTokens, "floor") * routing.experts + routing.expert;
  const int64_t sequences = routing.tokens() / kTokens;
  return torch::bincount(cell, {}, sequences * routing.experts).view({sequences, -1});
}

/// Routing whose weights are those by which outputs are added.
Routing combined(Routing routing, Combine combine) {
  routing.weight = combine_weights(routing, combine);
  return routing;
}

RouteInput route_input(const torch::Tensor& x) {
  return {.hidden = x.reshape({-1, kWidth}),
          .sequence = torch::arange(x.size(0)).repeat_interleave(kTokens)};
}

/// x + attention(norm x), then x + mlp(norm x); all kinds of model.
class Block : public torch::nn::Module {
 public:
  explicit Block(const Model& model)
      : model_(model),
        norm1_(register_module("norm1", std::make_shared<LayerNormImpl>(kWidth))),
        norm2_(register_module("norm2", std::make_shared<LayerNormImpl>(kWidth))) {
    const int64_t part = model.kind == Kind::kHalf ? 2 : 1;
    const double std = 0.125;  // 1 / sqrt(kWidth)
    if (model.kind == Kind::kUnion) {
      head_router_ = register_module(
          "head_router", std::make_shared<TopKRouter>(kWidth, kHeads, TopK{.k = kKept}));
      heads_ = register_module(
          "heads",
          std::make_shared<AttentionExperts>(AttentionExpertsOptions{
              .hidden = kWidth, .experts = kHeads, .head_dim = kHeadDim, .init_std = std}));
    } else {
      attention_ = register_module("attention", std::make_shared<AttentionImpl>(
                                                    AttentionOptions{.hidden = kWidth,
                                                                     .heads = kHeads / part,
                                                                     .head_dim = kHeadDim,
                                                                     .mask = kernels::Mask::kNone,
                                                                     .init_std = std},
                                                    nullptr));
    }
    make_mlp(part);
  }

  torch::Tensor forward(torch::Tensor x) {
    const torch::Tensor seen = norm1_->forward(x);
    if (attention_) {
      x = x + attention_->forward(seen, {});
    } else {
      head_routing = head_router_->route(route_input(seen));
      x = x + heads_->forward(seen, combined(head_routing, model_.combine));
    }
    const torch::Tensor rows = norm2_->forward(x);
    const RouteInput input = route_input(rows);
    mlp_routing = mlp_router_->route(input);
    aux =
        model_.kind == Kind::kSwitch ? 0.01 * expert_balance(mlp_routing, input) : torch::zeros({});
    const auto y = mlp_->forward(input.hidden, combined(mlp_routing, combine())) + bias_;
    return x + y.view(x.sizes());
  }

  /// Gradient of `loss` by the routers, 0 when it does not reach them.
  double router_gradient(const torch::Tensor& loss) const {
    std::vector<torch::Tensor> weights = mlp_router_->parameters();
    if (head_router_) weights.push_back(head_router_->weight);
    double sum = 0;
    for (const auto& g : torch::autograd::grad({loss}, weights, {}, true, false, true)) {
      if (g.defined()) sum += g.square().sum().item<double>();
    }
    return std::sqrt(sum);
  }

  /// Multiply-adds of the last forward pass: projections, scores, MLP, routers.
  Work work() const {
    const int64_t tokens = mlp_routing.tokens(), sequences = tokens / kTokens;
    Work work;
    const auto count = [&](double products) { work.multiply_adds += products; };
    if (attention_) {
      const auto width = static_cast<double>(attention_->q_proj->weight.size(0));
      count(4.0 * tokens * kWidth * width + 2.0 * sequences * kTokens * kTokens * width);
    } else {
      const auto lists = taken(head_routing).to(torch::kFloat64);
      count(4.0 * head_routing.pairs() * kWidth * kHeadDim +
            2.0 * lists.square().sum().item<double>() * kHeadDim +
            static_cast<double>(tokens) * kWidth * kHeads);
    }
    count(2.0 * mlp_routing.pairs() * kWidth * mlp_->options().inner);
    if (mlp_->options().experts > 1) count(static_cast<double>(tokens) * kWidth * kExperts);
    const auto read = taken(mlp_routing);
    work.fewest = read.min().item<int64_t>();
    work.most = read.max().item<int64_t>();
    return work;
  }

  Routing head_routing, mlp_routing;  ///< of the last forward pass
  torch::Tensor aux;

 private:
  void make_mlp(int64_t part) {
    int64_t experts = 1, inner = kInner / part;
    if (model_.kind == Kind::kSwitch) {
      experts = kExperts, inner = kInner / 2;  // as many active units as the union has
      mlp_router_ = std::make_shared<TopKRouter>(kWidth, experts, TopK{.k = 1});
    } else if (model_.kind == Kind::kUnion) {
      experts = kExperts, inner = kInner / kExperts;
      mlp_router_ = std::make_shared<PatchChoiceRouter>(
          kWidth, experts, PatchChoice{.k = kKept, .short_lists = ShortLists::kPad});
    } else {
      mlp_router_ = std::make_shared<TopKRouter>(kWidth, 1, TopK{.k = 1});
    }
    register_module("mlp_router", mlp_router_);
    mlp_ = register_module("mlp",
                           std::make_shared<ExpertMlp>(ExpertMlpOptions{
                               .in = kWidth, .inner = inner, .out = kWidth, .experts = experts}));
    // One output bias outside the sum: the experts' own would add up.
    const torch::NoGradGuard no_grad;
    mlp_->down_bias.zero_().set_requires_grad(false);
    bias_ = register_parameter("bias", torch::zeros({kWidth}));
  }

  /// Rivals are weighted by their probability, one alone by 1.
  Combine combine() const {
    return model_.kind == Kind::kUnion ? model_.combine : Combine::kWeighted;
  }

  Model model_;
  std::shared_ptr<LayerNormImpl> norm1_, norm2_;
  std::shared_ptr<AttentionImpl> attention_;  ///< null in the union
  std::shared_ptr<TopKRouter> head_router_;
  std::shared_ptr<AttentionExperts> heads_;
  std::shared_ptr<Router> mlp_router_;
  std::shared_ptr<ExpertMlp> mlp_;
  torch::Tensor bias_;
};

/// Patches, learned positions, two blocks, mean over the patches.
class Net : public torch::nn::Module {
 public:
  Net(const Model& model, int64_t classes)
      : in_(register_module("in", torch::nn::Linear(kPatch, kWidth))),
        out_(register_module("out", torch::nn::Linear(kWidth, classes))),
        norm_(register_module("norm", std::make_shared<LayerNormImpl>(kWidth))) {
    positions_ = register_parameter("positions", torch::randn({kTokens, kWidth}) * 0.02);
    for (int64_t i = 0; i < 2; ++i) {
      blocks.push_back(register_module(std::to_string(i), std::make_shared<Block>(model)));
    }
  }

  torch::Tensor forward(const torch::Tensor& pixels) {
    auto x = in_->forward(patches(pixels)) + positions_;
    aux = torch::zeros({});
    for (auto& block : blocks) {
      x = block->forward(x);
      aux = aux + block->aux;
    }
    return out_->forward(norm_->forward(x).mean(1));
  }

  std::vector<std::shared_ptr<Block>> blocks;
  torch::Tensor aux;

 private:
  torch::nn::Linear in_, out_;
  std::shared_ptr<LayerNormImpl> norm_;
  torch::Tensor positions_;
};

// ---- Training and what is measured.

torch::Tensor loss_of(Net& net, const LabelledRows& rows) {
  return torch::nn::functional::cross_entropy(net.forward(rows.x), rows.y) + net.aux;
}

void measure_work(const Net& net, int64_t sequences, Measurements& result) {
  double products = 0;
  int64_t fewest = kTokens, most = 0;
  for (const auto& block : net.blocks) {
    const Work work = block->work();
    products += work.multiply_adds;
    fewest = std::min(fewest, work.fewest);
    most = std::max(most, work.most);
  }
  result.values["multiply_adds"] = products / static_cast<double>(sequences);
  result.values["fewest_read"] = static_cast<double>(fewest);
  result.values["most_read"] = static_cast<double>(most);
}

Measurements measure(const ArmRun& run, const Model& model) {
  const auto digits = split_rows(load_digits(run.data), kTrainRows, run.seed);
  Net net(model, digits.train.classes);
  const int64_t batches = kTrainRows / kBatch;
  torch::Tensor order;
  Measurements result;
  const FitOptions options = {.steps = batches * (run.smoke() ? 3 : 40),
                              .lr = 1e-3,
                              .adam = {.beta2 = 0.999, .weight_decay = 0.01, .clip_norm = 0}};
  result.curves["loss"] = fit(run, net, options, [&](int64_t step) {
    if (step % batches == 0) order = shuffled(kTrainRows, run.seed, step / batches);
    return loss_of(net, digits.train.at(order.narrow(0, step % batches * kBatch, kBatch)));
  });
  const auto loss = loss_of(net, digits.train.at(torch::arange(kBatch)));
  double gradient = 0;
  for (const auto& block : net.blocks) gradient += block->router_gradient(loss);
  result.values["router_gradient"] = gradient;

  const torch::NoGradGuard no_grad;
  const auto guess = net.forward(digits.test.x).argmax(1);
  result.values["accuracy"] =
      100 * (guess == digits.test.y).to(torch::kFloat64).mean().item<double>();
  measure_work(net, digits.test.size(), result);
  return result;
}

// ---- The recipe.

void accept_exactness(Criterion& criterion) {
  const auto exact = [&](const char* value, double bound) {
    criterion.every_seed(
        fmt::format("largest difference from dense, {}", value),
        [value](const At& at) { return at("exactness", value); }, at_most(bound));
  };
  for (const char* value : {"mlp", "attention"}) exact(value, 1e-5);
  for (const char* value : {"mlp_gradient", "attention_gradient"}) exact(value, 1e-4);
  criterion.every_seed(
      "blocks that fuse(partition()) does not give back byte for byte",
      [](const At& at) { return at("exactness", "not_fused_back"); }, at_most(0));
}

void accept_structure(Criterion& criterion) {
  constexpr double kCapacity = kTokens / 2;
  criterion.every_seed(
      "fewest tokens of a sequence that an MLP expert reads",
      [](const At& at) { return at("uoe", "fewest_read"); }, at_least(kCapacity));
  criterion.every_seed(
      "most tokens that it reads", [](const At& at) { return at("uoe", "most_read"); },
      at_most(kCapacity));
  criterion.every_seed(
      "multiply-adds of UoE / dense",
      [](const At& at) { return at("uoe", "multiply_adds") / at("dense", "multiply_adds"); },
      at_most(0.6));
  criterion.every_seed(
      "gradient of the routers, weighted",
      [](const At& at) { return at("uoe", "router_gradient"); }, at_least(1e-9));
  criterion.every_seed(
      "the same, unweighted as released",
      [](const At& at) { return at("uoe_released", "router_gradient"); }, at_most(0));
}

void accept(Criterion& criterion) {
  accept_exactness(criterion);
  accept_structure(criterion);
  if (criterion.smoke()) return;
  const auto beyond = [](const char* other) {
    return [other](const At& at) { return at("uoe", "accuracy") - at(other, "accuracy"); };
  };
  criterion.on_means("accuracy of UoE - dense", beyond("dense"), at_least(-1.5));
  criterion.on_means("accuracy of UoE - half the width", beyond("half"), at_least(-0.3));
}

Arm arm(const char* name, const char* help, const Model& model) {
  return {.name = name, .help = help, .measure = [model](const ArmRun& run) {
            // The stub: outputs are added without their gates, so that no router ever learns.
            Model used = model;
            if (run.sabotaged()) used.combine = Combine::kSum;
            return measure(run, used);
          }};
}

}  // namespace

Recipe union_of_experts(const Setting&) {
  return {.stub = "outputs are added without their gates, so that the routers never learn",
          .arms = {{.name = "exactness",
                    .help = "all parts of a random block against the block",
                    .measure = measure_exactness},
                   arm("dense", "4 heads, MLP of 128", {.kind = Kind::kDense}),
                   arm("half", "2 heads, MLP of 64", {.kind = Kind::kHalf}),
                   arm("switch", "dense attention, 4 MLP experts of 64, top-1",
                       {.kind = Kind::kSwitch}),
                   arm("uoe", "half of the heads and of the MLP for each token, gates trained",
                       {.kind = Kind::kUnion}),
                   arm("uoe_released", "the same without gates, as the released code",
                       {.kind = Kind::kUnion, .combine = Combine::kSum})},
          .tables = {{.title = "All parts against the dense block: largest differences",
                      .arms = {"exactness"},
                      .columns = {{"mlp", "MLP", 8},
                                  {"mlp_gradient", "its gradient", 8},
                                  {"attention", "attention", 8},
                                  {"attention_gradient", "its gradient", 8},
                                  {"not_fused_back", "not fused back", 0}}},
                     {.title = "Digits as 16 patches",
                      .arms = {"dense", "half", "switch", "uoe", "uoe_released"},
                      .columns = {{"accuracy", "accuracy %", 2},
                                  {"multiply_adds", "multiply-adds a sequence", 0},
                                  {"fewest_read", "fewest tokens an expert reads", 0},
                                  {"most_read", "most", 0},
                                  {"router_gradient", "routers' gradient", 5}}}},
          .accept = accept,
          .pictures = [](const Results& results) {
            return std::vector<Picture>{
                {"loss.svg",
                 LineChart{.title = "training loss",
                           .x_label = "step",
                           .y_label = "loss",
                           .series = results.series({"dense", "half", "switch", "uoe"}, "loss")}}};
          }};
}

}  // namespace cadre::recipes
