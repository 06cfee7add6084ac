#include "cadre/objectives/routing_objective.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "cadre/base/error.h"

namespace cadre {
namespace {

torch::Tensor random_tensor(at::IntArrayRef sizes, uint64_t seed) {
  return torch::empty(sizes).normal_(0.0, 1.0, at::detail::createCPUGenerator(seed));
}

/// A routing of softmax(logits) to `ids` [T, k].
Routing routed(const torch::Tensor& logits, const torch::Tensor& ids,
               const torch::Tensor& valid = {}) {
  const auto probs = torch::softmax(logits, 1);
  Routing routing = routing_from_dense(logits.size(1), ids, probs.gather(1, ids), valid);
  routing.logits = logits;
  routing.probs = probs;
  return routing;
}

torch::Tensor top_ids(const torch::Tensor& logits, int64_t k) {
  return std::get<1>(logits.topk(k, 1));
}

Routing random_routing(int64_t tokens, int64_t experts, int64_t k,
                       const torch::Tensor& valid = {}) {
  const auto logits = random_tensor({tokens, experts}, 1);
  return routed(logits, top_ids(logits, k), valid);
}

/// The load of expert_balance, written down plainly: E / (k T) * count.
torch::Tensor plain_f(const Routing& routing) {
  return routing.load().to(torch::kFloat32) * routing.experts / routing.pairs();
}

/// d value / d logits against central differences along random directions.
void expect_gradient(const torch::Tensor& logits,
                     const std::function<torch::Tensor(const torch::Tensor&)>& value) {
  auto x = logits.clone().requires_grad_();
  const auto gradient = torch::autograd::grad({value(x) * 3}, {x})[0] / 3;
  torch::NoGradGuard no_grad;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const auto direction = random_tensor(x.sizes(), 50 + seed);
    constexpr double kStep = 1e-2;
    const double numeric = (value(logits + direction * kStep).item<double>() -
                            value(logits - direction * kStep).item<double>()) /
                           (2 * kStep);
    EXPECT_NEAR((gradient * direction).sum().item<double>(), numeric,
                2e-3 * std::max(0.1, std::abs(numeric)));
  }
}

TEST(ExpertBalance, UniformProbabilitiesGiveOneWhateverTheLoad) {
  const auto logits = torch::zeros({10, 8});
  EXPECT_FLOAT_EQ(
      expert_balance(routed(logits, torch::zeros({10, 1}, torch::kInt64)), {}).item<float>(), 1);
  EXPECT_FLOAT_EQ(expert_balance(routed(logits, top_ids(logits, 3)), {}).item<float>(), 1);
}

TEST(ExpertBalance, UniformLoadGivesOneWhateverTheProbabilities) {
  const auto ids = torch::arange(12).remainder(4).view({12, 1});
  EXPECT_FLOAT_EQ(expert_balance(routed(random_tensor({12, 4}, 2), ids), {}).item<float>(), 1);
}

TEST(ExpertBalance, CollapseGivesTheNumberOfExperts) {
  auto logits = torch::zeros({6, 5});
  logits.select(1, 3).fill_(100);
  EXPECT_FLOAT_EQ(expert_balance(routed(logits, top_ids(logits, 1)), {}).item<float>(), 5);
}

TEST(ExpertBalance, LoadSumsToTheNumberOfExperts) {
  EXPECT_FLOAT_EQ(plain_f(random_routing(33, 6, 2)).sum().item<float>(), 6);
}

TEST(ExpertBalance, MatchesThePaperOnRandomRoutings) {
  const Routing routing = random_routing(33, 6, 2);
  const auto expected = (plain_f(routing) * routing.probs.mean(0)).sum();
  EXPECT_NEAR(expert_balance(routing, {}).item<float>(), expected.item<float>(), 1e-6);
}

TEST(ExpertBalance, ScoresThatDoNotSumToOneAreNormalised) {
  Routing routing = random_routing(33, 6, 2);
  const float expected = expert_balance(routing, {}).item<float>();
  routing.probs = routing.probs * (random_tensor({33, 1}, 3).abs() + 0.1);
  EXPECT_NEAR(expert_balance(routing, {}).item<float>(), expected, 1e-6);
}

TEST(ExpertBalance, SequenceScopeIsTheMeanOfTheSequences) {
  const auto logits = random_tensor({30, 6}, 4);
  const auto ids = top_ids(logits, 2);
  RouteInput input;
  input.sequence = torch::cat({torch::full({10}, 7), torch::full({20}, 3)}).to(torch::kInt64);
  const auto part = [&](int64_t start, int64_t length) {
    return expert_balance(routed(logits.narrow(0, start, length), ids.narrow(0, start, length)), {})
        .item<float>();
  };
  const Routing routing = routed(logits, ids);
  EXPECT_NEAR(expert_balance(routing, input, BalanceScope::kSequence).item<float>(),
              (part(0, 10) + part(10, 20)) / 2, 1e-6);
  EXPECT_NEAR(expert_balance(routing, {}, BalanceScope::kSequence).item<float>(),
              expert_balance(routing, {}).item<float>(), 1e-6);
}

TEST(ExpertBalance, PaddingCountsNowhere) {
  const auto logits = random_tensor({12, 4}, 5);
  const auto ids = top_ids(logits, 2);
  const auto valid = torch::arange(12).lt(9);
  RouteInput input;
  // The last sequence is all padding: it is no sequence.
  input.sequence = torch::arange(12).div(3, "floor");
  RouteInput input_without;
  input_without.sequence = input.sequence.narrow(0, 0, 9);
  const Routing padded = routed(logits, ids, valid);
  const Routing without = routed(logits.narrow(0, 0, 9), ids.narrow(0, 0, 9));
  for (const auto scope : {BalanceScope::kBatch, BalanceScope::kSequence}) {
    EXPECT_NEAR(expert_balance(padded, input, scope).item<float>(),
                expert_balance(without, input_without, scope).item<float>(), 1e-6);
  }
  EXPECT_NEAR(device_balance(padded, 2).item<float>(), device_balance(without, 2).item<float>(),
              1e-6);
  EXPECT_NEAR(router_z_loss(padded).item<float>(), router_z_loss(without).item<float>(), 1e-5);
}

TEST(ExpertBalance, NoPairsOrNoTokensGiveZero) {
  const auto none = torch::zeros({0, 4});
  EXPECT_EQ(expert_balance(routed(none, torch::zeros({0, 2}, torch::kInt64)), {}).item<float>(), 0);
  const auto logits = random_tensor({3, 4}, 5);
  const Routing padding = routed(logits, top_ids(logits, 2), torch::zeros({3}, torch::kBool));
  EXPECT_EQ(expert_balance(padding, {}).item<float>(), 0);
  EXPECT_EQ(router_z_loss(padding).item<float>(), 0);
}

TEST(ExpertBalance, GradientInBothScopes) {
  const auto logits = random_tensor({12, 5}, 6);
  const auto ids = top_ids(logits, 2);
  RouteInput input;
  input.sequence = torch::arange(12).div(4, "floor");
  const auto valid = torch::arange(12).ne(5);
  for (const auto scope : {BalanceScope::kBatch, BalanceScope::kSequence}) {
    expect_gradient(logits, [&](const torch::Tensor& x) {
      return expert_balance(routed(x, ids, valid), input, scope);
    });
  }
}

TEST(ExpertBalance, GradientWithSigmoidScores) {
  const auto logits = random_tensor({12, 5}, 6);
  const auto ids = top_ids(logits, 2);
  expect_gradient(logits, [&](const torch::Tensor& x) {
    Routing routing = routed(x, ids);
    routing.probs = torch::sigmoid(x);
    return expert_balance(routing, {});
  });
}

TEST(ExpertBalance, NullColumnsCarryNoGradient) {
  const auto logits = random_tensor({6, 5}, 6);
  const auto ids = top_ids(logits.narrow(1, 0, 3), 2);
  auto probs = torch::softmax(logits, 1).requires_grad_();
  Routing routing = routing_from_dense(3, ids, probs.detach().gather(1, ids));
  routing.probs = probs;
  expert_balance(routing, {}).backward();
  EXPECT_EQ(probs.grad().narrow(1, 3, 2).abs().max().item<float>(), 0);
  EXPECT_GT(probs.grad().narrow(1, 0, 3).abs().max().item<float>(), 0);
}

TEST(DeviceBalance, MatchesThePaper) {
  const Routing routing = random_routing(33, 6, 2);
  const auto f = plain_f(routing).view({3, 2}).mean(1);
  const auto p = routing.probs.mean(0).view({3, 2}).sum(1);
  EXPECT_NEAR(device_balance(routing, 3).item<float>(), (f * p).sum().item<float>(), 1e-6);
}

TEST(DeviceBalance, OneGroupIsAlwaysBalancedAndOneExpertAGroupIsExpertBalance) {
  const Routing routing = random_routing(33, 6, 2);
  EXPECT_NEAR(device_balance(routing, 1).item<float>(), 1, 1e-6);
  EXPECT_NEAR(device_balance(routing, 6).item<float>(), expert_balance(routing, {}).item<float>(),
              1e-6);
}

TEST(DeviceBalance, Gradient) {
  const auto logits = random_tensor({12, 6}, 7);
  const auto ids = top_ids(logits, 2);
  expect_gradient(logits,
                  [&](const torch::Tensor& x) { return device_balance(routed(x, ids), 3); });
}

TEST(DeviceBalance, RefusesGroupsThatDoNotDivide) {
  EXPECT_THROW(device_balance(random_routing(3, 6, 2), 4), UsageError);
  EXPECT_THROW(device_balance(random_routing(3, 6, 2), 0), UsageError);
}

TEST(ZLoss, ClosedForm) {
  const auto logits = torch::tensor({0.0F, 0.0F, 2.0F, 2.0F}).view({2, 2});
  const float a = std::log(2.0F), b = 2 + std::log(2.0F);
  const Routing routing = routed(logits, top_ids(logits, 1));
  EXPECT_NEAR(router_z_loss(routing).item<float>(), (a * a + b * b) / 2, 1e-5);
}

TEST(ZLoss, LargeLogitsStayFinite) {
  const auto logits = torch::full({2, 3}, 1000.0F);
  EXPECT_NEAR(router_z_loss(routed(logits, top_ids(logits, 1))).item<float>(), 1002198, 10);
}

TEST(ZLoss, Gradient) {
  const auto logits = random_tensor({12, 6}, 8);
  const auto ids = top_ids(logits, 2);
  const auto valid = torch::arange(12).ne(5);
  expect_gradient(logits,
                  [&](const torch::Tensor& x) { return router_z_loss(routed(x, ids, valid)); });
}

TEST(RoutingObjective, NamesAndCoefficients) {
  const Routing routing = random_routing(33, 6, 2);
  const RoutingObjective balance = balance_expert(0.01), device = balance_device(0.05, 2),
                         z = z_loss(0.001);
  EXPECT_EQ(balance.name, "balance");
  EXPECT_EQ(balance.coefficient, 0.01);
  EXPECT_EQ(balance.evaluate(routing, {}).item<float>(), expert_balance(routing, {}).item<float>());
  EXPECT_EQ(device.name, "device_balance");
  EXPECT_EQ(device.evaluate(routing, {}).item<float>(), device_balance(routing, 2).item<float>());
  EXPECT_EQ(z.name, "z_loss");
  EXPECT_EQ(z.evaluate(routing, {}).item<float>(), router_z_loss(routing).item<float>());
}

}  // namespace
}  // namespace cadre
