#include "cadre/routing/transport_plan.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using Plan = std::function<torch::Tensor(const torch::Tensor& cost)>;

/// d sum(T * mix) / d cost against central differences.
void expect_cost_gradient(const Plan& plan, const torch::Tensor& start) {
  const auto mix = testing::random_tensor(start.sizes(), 5).to(torch::kFloat64);
  auto cost = start.clone().requires_grad_(true);
  (plan(cost) * mix).sum().backward();
  for (uint64_t seed = 0; seed < 4; ++seed) {
    constexpr double kStep = 1e-5;
    const auto direction = testing::random_tensor(start.sizes(), 20 + seed).to(torch::kFloat64);
    const auto at = [&](double step) { return (plan(start + direction * step) * mix).sum(); };
    const double slope = (at(kStep) - at(-kStep)).item<double>() / (2 * kStep);
    const double predicted = (cost.grad() * direction).sum().item<double>();
    EXPECT_NEAR(predicted, slope, 1e-4 * (1 + std::abs(slope)));
  }
}

TEST(TransportPlan, GradientOfCosts) {
  const auto cost = testing::random_tensor({7, 4}, 3).sigmoid().to(torch::kFloat64);
  const auto supply = torch::ones({7}), demand = torch::full({4}, 1.75);
  expect_cost_gradient(
      [&](const torch::Tensor& c) {
        return entropic_plan(c, supply, demand, {.epsilon = 0.3, .tolerance = 1e-12});
      },
      cost);
  expect_cost_gradient(
      [&](const torch::Tensor& c) {
        return sparse_plan(c, supply, demand,
                           {.gamma = 0.5, .method = transport::Lbfgs{.tolerance = 1e-12}});
      },
      cost);
}

TEST(TransportPlan, FloatMarginalsThatDifferByRounding) {
  const auto cost = testing::random_tensor({9, 7}, 3);
  const auto plan =
      entropic_plan(cost, torch::ones({9}), torch::full({7}, 9.0F / 7), {.epsilon = 1});
  EXPECT_EQ(plan.scalar_type(), torch::kFloat32);
  EXPECT_LT((plan.sum(1) - 1).abs().max().item<float>(), 1e-5);
}

TEST(TransportPlan, MarginalsGetGradients) {
  auto supply = torch::ones({5}, torch::requires_grad());
  auto demand = torch::full({2}, 2.5, torch::requires_grad());
  const auto plan = sparse_plan(testing::random_tensor({5, 2}, 3), supply, demand);
  plan.select(1, 0).sum().backward();  // equals demand[0]
  EXPECT_NEAR((demand.grad()[0] - demand.grad()[1]).item<float>(), 1, 1e-5);
  EXPECT_LT((supply.grad() - supply.grad()[0]).abs().max().item<float>(), 1e-5);
}

TEST(TransportPlan, RefusesShapesThatDoNotFit) {
  const auto cost = torch::zeros({3, 2});
  EXPECT_THROW(entropic_plan(cost, torch::ones({2}), torch::ones({2})), UsageError);
  EXPECT_THROW(sparse_plan(cost, torch::ones({3}), torch::ones({2})), UsageError);
  EXPECT_THROW(sparse_plan(cost.view({6}), torch::ones({3}), torch::ones({2})), UsageError);
}

}  // namespace
}  // namespace cadre
