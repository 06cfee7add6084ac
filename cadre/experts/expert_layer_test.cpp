#include "cadre/experts/expert_layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/nn/transformer.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kHidden = 8, kInner = 12;

torch::Tensor random_tensor(at::IntArrayRef sizes, uint64_t seed) {
  return torch::empty(sizes).normal_(0.0, 1.0, at::detail::createCPUGenerator(seed));
}

/// A layer with clear scores and outputs of order one.
std::shared_ptr<ExpertLayer> make_layer(ExpertLayerOptions options, uint64_t seed = 1) {
  torch::manual_seed(seed);
  options.init_std = 0.4;
  options.router.init_std = 1.0;
  return std::make_shared<ExpertLayer>(options);
}

ExpertLayerOptions small(int64_t experts, const TopK& router) {
  return {.hidden = kHidden, .inner = kInner, .experts = experts, .router = router};
}

torch::Tensor swiglu(const torch::Tensor& x, const torch::Tensor& gate, const torch::Tensor& up,
                     const torch::Tensor& down) {
  return torch::matmul(torch::silu(torch::matmul(x, gate.t())) * torch::matmul(x, up.t()),
                       down.t());
}

/// DeepSeekMoE eq. 9-11 in plain torch, every expert on every token.
torch::Tensor plain_layer(ExpertLayer& layer, const torch::Tensor& hidden) {
  const auto x = hidden.reshape({-1, kHidden});
  const auto& weight = dynamic_cast<TopKRouter&>(*layer.gate).weight;
  const auto probs = torch::softmax(torch::matmul(x, weight.t()), 1);
  const auto ids = std::get<1>(probs.topk(layer.options().router.k, 1));
  const auto kept = torch::zeros_like(probs).scatter(1, ids, 1.0);
  auto y = torch::zeros_like(x);
  for (int64_t e = 0; e < layer.options().experts; ++e) {
    const auto out = swiglu(x, layer.gate_proj[e], layer.up_proj[e], layer.down_proj[e]);
    y = y + (probs * kept).select(1, e).unsqueeze(1) * out;
  }
  if (layer.shared_experts) {
    const auto& shared = *layer.shared_experts;
    y = y + swiglu(x, shared.gate_proj->weight, shared.up_proj->weight, shared.down_proj->weight);
  }
  return y.view(hidden.sizes());
}

torch::Tensor run(ExpertLayer& layer, const torch::Tensor& hidden) {
  LayerContext context;
  return layer.forward(hidden, context);
}

struct Shape {
  std::string name;
  int64_t experts, k, shared_inner, batch, length;
};
void PrintTo(const Shape& shape, std::ostream* out) { *out << shape.name; }

class ExpertLayerShapes : public ::testing::TestWithParam<Shape> {};
INSTANTIATE_TEST_SUITE_P(
    Layer, ExpertLayerShapes,
    ::testing::Values(Shape{"plain_top_k", 6, 2, 0, 2, 9}, Shape{"with_shared", 6, 2, 20, 2, 9},
                      Shape{"one_expert", 1, 1, 0, 2, 5}, Shape{"k_is_all", 4, 4, 8, 1, 7},
                      Shape{"one_token", 16, 3, 8, 1, 1}, Shape{"empty_batch", 4, 2, 8, 0, 5}),
    [](const auto& info) { return info.param.name; });

TEST_P(ExpertLayerShapes, ValuesAndGradientsOfThePaper) {
  const Shape& shape = GetParam();
  auto options = small(shape.experts, {.k = shape.k});
  options.shared_inner = shape.shared_inner;
  const auto layer = make_layer(options);
  const auto hidden = random_tensor({shape.batch, shape.length, kHidden}, 2).requires_grad_();
  const auto target = random_tensor(hidden.sizes(), 3);
  const auto y = run(*layer, hidden), expected = plain_layer(*layer, hidden);
  EXPECT_TRUE(torch::allclose(y, expected, 1e-4, 1e-5));

  auto inputs = layer->parameters();
  inputs.push_back(hidden);
  const auto gradients = torch::autograd::grad({(y * target).sum()}, inputs);
  const auto wanted = torch::autograd::grad({(expected * target).sum()}, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(torch::allclose(gradients[i], wanted[i], 1e-4, 1e-5)) << "input " << i;
  }
}

TEST(ExpertLayer, GradientByCentralDifferencesWithFrozenSelection) {
  auto options = small(6, {.k = 2});
  options.shared_inner = 10;
  options.objectives = {balance_expert(0.5), z_loss(0.1)};
  const auto layer = make_layer(options);
  auto hidden = random_tensor({1, 6, kHidden}, 2).requires_grad_();
  const auto target = random_tensor(hidden.sizes(), 3);
  const auto value = [&] {
    LayerContext context;
    auto total = (layer->forward(hidden, context) * target).sum();
    for (const AuxLoss& aux : context.aux) total = total + aux.value;
    return total;
  };
  auto inputs = layer->parameters();
  inputs.push_back(hidden);
  const auto gradients = torch::autograd::grad({value()}, inputs);
  const auto selection = std::get<0>(layer->last_routing().expert.view({-1, 2}).sort(1));
  torch::NoGradGuard no_grad;
  constexpr double kStep = 5e-3;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto original = inputs[i].clone();
    const auto direction = gradients[i] / gradients[i].norm();
    const auto shifted = [&](double step) {
      inputs[i].copy_(original + direction * step);
      const double result = value().item<double>();
      inputs[i].copy_(original);
      EXPECT_TRUE(
          torch::equal(std::get<0>(layer->last_routing().expert.view({-1, 2}).sort(1)), selection))
          << "the selection moved: choose another seed";
      return result;
    };
    const double numeric = (shifted(kStep) - shifted(-kStep)) / (2 * kStep);
    EXPECT_NEAR(gradients[i].norm().item<double>() / numeric, 1, 1e-3) << "input " << i;
  }
}

TEST(ExpertLayer, ExpertsThatWereNotChosenDoNotTouchTheRouter) {
  const auto hidden = random_tensor({1, 1, kHidden}, 2);
  for (const Squash squash : {Squash::kSoftmax, Squash::kSigmoid}) {
    const auto layer = make_layer(small(6, {.k = 2, .squash = squash}));
    const auto& router = dynamic_cast<TopKRouter&>(*layer->gate);
    const auto gradient = [&] {
      return torch::autograd::grad({run(*layer, hidden).sum()}, {router.weight})[0];
    };
    const auto before = gradient();
    const auto chosen = layer->last_routing().load().gt(0);
    {
      torch::NoGradGuard no_grad;
      layer->down_proj.index_put_({chosen.logical_not()}, torch::tensor(NAN));
    }
    EXPECT_TRUE(torch::equal(gradient(), before));
    // Only the softmax's denominator reaches them.
    const auto others = before.index({chosen.logical_not()}).abs().max().item<float>();
    EXPECT_EQ(others > 0, squash == Squash::kSoftmax);
  }
}

TEST(ExpertLayer, ATokenDoesNotDependOnTheOthers) {
  const auto layer = make_layer(small(6, {.k = 2}));
  const auto hidden = random_tensor({1, 20, kHidden}, 2);
  const auto order = torch::randperm(20, at::detail::createCPUGenerator(4));
  const auto y = run(*layer, hidden);
  EXPECT_TRUE(torch::allclose(run(*layer, hidden.index_select(1, order)), y.index_select(1, order),
                              1e-5, 1e-6));
  EXPECT_TRUE(torch::allclose(run(*layer, hidden.narrow(1, 3, 1)), y.narrow(1, 3, 1), 1e-5, 1e-6));
}

TEST(ExpertLayer, PaddingGetsTheSharedExpertsOnly) {
  auto options = small(6, {.k = 2});
  options.shared_inner = 8;
  const auto layer = make_layer(options);
  const auto hidden = random_tensor({2, 3, kHidden}, 2);
  LayerContext context;
  context.padding = torch::tensor({false, false, true, false, true, true}).view({2, 3});
  const auto y = layer->forward(hidden, context);
  const auto shared = layer->shared_experts->forward(hidden);
  EXPECT_TRUE(torch::equal(y[1][2], shared[1][2]));
  EXPECT_FALSE(torch::allclose(y[1][0], shared[1][0]));
  EXPECT_EQ(layer->last_routing().pairs(), 3 * 2);
}

TEST(ExpertLayer, ObjectivesAreAddedInTrainingOnly) {
  auto options = small(6, {.k = 2});
  options.objectives = {balance_expert(0.01, BalanceScope::kSequence), z_loss(0.001)};
  const auto layer = make_layer(options);
  const auto hidden = random_tensor({2, 5, kHidden}, 2);
  LayerContext context;
  context.layer = 3;
  layer->forward(hidden, context);
  ASSERT_EQ(context.aux.size(), 2);
  EXPECT_EQ(context.aux[0].name, "balance/layer3");
  EXPECT_EQ(context.aux[1].name, "z_loss/layer3");
  RouteInput input;
  input.sequence = torch::arange(2).repeat_interleave(5);
  const auto balance = expert_balance(layer->last_routing(), input, BalanceScope::kSequence);
  EXPECT_FLOAT_EQ(context.aux[0].value.item<float>(), 0.01F * balance.item<float>());
  EXPECT_FLOAT_EQ(context.aux[1].value.item<float>(),
                  0.001F * router_z_loss(layer->last_routing()).item<float>());
  EXPECT_TRUE(context.aux[0].value.requires_grad());

  layer->eval();
  LayerContext evaluation;
  layer->forward(hidden, evaluation);
  EXPECT_TRUE(evaluation.aux.empty());
}

TEST(ExpertLayer, LoadAddsUpOverTrainingPassesUntilTaken) {
  const auto layer = make_layer(small(6, {.k = 2}));
  run(*layer, random_tensor({2, 5, kHidden}, 2));
  const auto first = layer->last_routing().load();
  run(*layer, random_tensor({1, 4, kHidden}, 3));
  const auto second = layer->last_routing().load();
  layer->eval();
  run(*layer, random_tensor({1, 4, kHidden}, 4));
  EXPECT_TRUE(torch::equal(layer->take_load(), first + second));
  EXPECT_EQ(layer->take_load().sum().item<int64_t>(), 0);
}

TEST(ExpertLayer, StatsAreThoseOfTheLastPass) {
  const auto layer = make_layer(small(6, {.k = 2}));
  EXPECT_THROW(layer->stats(), UsageError);
  run(*layer, random_tensor({2, 5, kHidden}, 2));
  EXPECT_DOUBLE_EQ(layer->stats().mean_k, 2);
  layer->knobs.k = 3;
  run(*layer, random_tensor({2, 5, kHidden}, 2));
  EXPECT_DOUBLE_EQ(layer->stats().mean_k, 3);
  EXPECT_FALSE(layer->last_routing().probs.requires_grad());
}

/// Token t goes to t % 3 experts; the state counts the layers passed.
class CountingRouter : public Router {
 public:
  explicit CountingRouter(int64_t experts) : experts_(experts) {}
  int64_t experts() const override { return experts_; }
  Routing route(const RouteInput& input) override {
    const int64_t tokens = input.hidden.size(0);
    const auto column = torch::arange(2).expand({tokens, 2});
    const auto mine = torch::arange(tokens).remainder(3).unsqueeze(1);
    const auto ids =
        torch::where(column.lt(mine), column, torch::full({}, experts_, torch::kInt64));
    Routing routing = routing_from_dense(experts_, ids, torch::ones({tokens, 2}));
    routing.state = input.state.defined() ? input.state + 1 : torch::ones({tokens, 1});
    return routing;
  }

 private:
  int64_t experts_;
};

TEST(ExpertLayer, TakesAnyRouterWithVariableKAndState) {
  const auto layer =
      std::make_shared<ExpertLayer>(small(2, {}), std::make_shared<CountingRouter>(2));
  LayerContext context;
  const auto hidden = random_tensor({1, 6, kHidden}, 2);
  auto y = layer->forward(hidden, context);
  EXPECT_EQ(y[0][0].abs().sum().item<float>(), 0);
  EXPECT_GT(y[0][1].abs().sum().item<float>(), 0);
  layer->forward(hidden, context);
  EXPECT_TRUE(torch::equal(context.router_state, torch::full({6, 1}, 2.0)));
  EXPECT_NEAR(layer->stats().share_empty, 1.0 / 3, 1e-12);
}

TEST(ExpertLayer, NamesOfParameters) {
  auto options = small(4, {.k = 2, .bias_update = 0.001});
  options.shared_inner = 8;
  const auto layer = make_layer(options);
  EXPECT_THAT(layer->named_parameters().keys(),
              ::testing::UnorderedElementsAre("gate.weight", "gate_proj", "up_proj", "down_proj",
                                              "shared_experts.gate_proj.weight",
                                              "shared_experts.up_proj.weight",
                                              "shared_experts.down_proj.weight"));
  EXPECT_THAT(layer->named_buffers().keys(), ElementsAre("gate.e_score_correction_bias"));
}

TEST(ExpertLayer, InitialWeightsHaveTheDeviationAskedFor) {
  torch::manual_seed(1);
  const ExpertLayer layer(
      {.hidden = 64, .inner = 64, .experts = 8, .router = {}, .init_std = 0.05});
  for (const auto& w : {layer.gate_proj, layer.up_proj, layer.down_proj}) {
    EXPECT_NEAR(w.std().item<double>(), 0.05, 0.001);
    EXPECT_NEAR(w.mean().item<double>(), 0, 0.001);
  }
}

TEST(ExpertLayer, RecomputedActivationsGiveTheSameGradientsAndLoad) {
  const auto gradients = [](Activations activations) {
    torch::manual_seed(1);
    auto options = small(4, {.k = 2});
    options.objectives = {balance_expert(0.1)};
    std::shared_ptr<ExpertLayer> layer;
    Decoder decoder(DecoderOptions{.vocabulary = 11,
                                   .layers = 1,
                                   .activations = activations,
                                   .attention = {.hidden = kHidden, .heads = 2}},
                    [&](int64_t) { return layer = std::make_shared<ExpertLayer>(options); });
    LayerContext context;
    context.token_ids = torch::arange(10).view({2, 5});
    auto loss = decoder->forward(context).square().sum();
    EXPECT_EQ(context.aux.size(), 1);
    for (const AuxLoss& aux : context.aux) loss = loss + aux.value;
    loss.backward();
    EXPECT_EQ(layer->take_load().sum().item<int64_t>(), 20);
    std::vector<torch::Tensor> result;
    for (const auto& parameter : decoder->parameters()) result.push_back(parameter.grad());
    return result;
  };
  const auto kept = gradients(Activations::kKeep), again = gradients(Activations::kRecompute);
  ASSERT_EQ(kept.size(), again.size());
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(torch::allclose(kept[i], again[i]));
}

TEST(ExpertLayer, RefusesImpossibleOptions) {
  const auto make = [](const ExpertLayerOptions& options) {
    return [=] { ExpertLayer layer(options); };
  };
  EXPECT_THROW(make({.hidden = 8, .inner = 8, .experts = 0})(), UsageError);
  EXPECT_THROW(make({.hidden = 0, .inner = 8, .experts = 2})(), UsageError);
  EXPECT_THROW(make({.hidden = 8, .inner = 0, .experts = 2})(), UsageError);
  EXPECT_THROW(make({.hidden = 8, .inner = 8, .experts = 2, .shared_inner = -1})(), UsageError);
  EXPECT_THROW(make({.hidden = 8, .inner = 8, .experts = 2, .router = {.k = 3}})(), UsageError);
  EXPECT_THROW(ExpertLayer(small(3, {}), std::make_shared<CountingRouter>(2)), UsageError);
}

TEST(ExpertLayer, RefusesHiddenStatesOfAnotherWidth) {
  const auto layer = make_layer(small(4, {}));
  EXPECT_THROW(run(*layer, random_tensor({1, 2, kHidden + 1}, 1)), UsageError);
  EXPECT_THROW(run(*layer, random_tensor({2, kHidden}, 1)), UsageError);
}

}  // namespace
}  // namespace cadre
