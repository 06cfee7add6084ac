#include "cadre/routing/transport/plan_gradient.h"

#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "cadre/routing/transport/problem_test_kit.h"
#include "cadre/routing/transport/sinkhorn.h"
#include "cadre/routing/transport/sparse.h"

namespace cadre::transport {
namespace {

using Solve = std::function<Plan(const Problem&)>;

std::vector<double> waves(size_t size, double phase) {
  std::vector<double> values(size);
  for (size_t i = 0; i < size; ++i) values[i] = std::sin(1.7 * static_cast<double>(i) + phase);
  return values;
}

double dot(const std::vector<double>& x, const std::vector<double>& y) {
  return std::inner_product(x.begin(), x.end(), y.begin(), 0.0);
}

/// Moves costs and marginals along a direction that keeps the totals equal.
struct Direction {
  std::vector<double> cost, supply, demand;

  Problem applied(Problem problem, double step) const {
    for (size_t i = 0; i < cost.size(); ++i) problem.cost[i] += step * cost[i];
    for (size_t i = 0; i < supply.size(); ++i) problem.supply[i] += step * supply[i];
    for (size_t i = 0; i < demand.size(); ++i) problem.demand[i] += step * demand[i];
    return problem;
  }
};

void expect_gradient(const Problem& problem, const Solve& solve,
                     const std::function<ProblemGradient(const Plan&, std::vector<double>)>& grad) {
  const auto weights = waves(problem.cost.size(), 0.3);
  const ProblemGradient gradient = grad(solve(problem), weights);
  for (int seed = 0; seed < 4; ++seed) {
    Direction direction{.cost = waves(problem.cost.size(), seed),
                        .supply = waves(problem.supply.size(), seed + 0.5),
                        .demand = waves(problem.demand.size(), seed + 0.9)};
    const double surplus = std::accumulate(direction.supply.begin(), direction.supply.end(), 0.0) -
                           std::accumulate(direction.demand.begin(), direction.demand.end(), 0.0);
    direction.demand.back() += surplus;
    constexpr double kStep = 1e-5;
    const double slope = (dot(weights, solve(direction.applied(problem, kStep)).mass) -
                          dot(weights, solve(direction.applied(problem, -kStep)).mass)) /
                         (2 * kStep);
    const double predicted = dot(gradient.cost, direction.cost) +
                             dot(gradient.supply, direction.supply) +
                             dot(gradient.demand, direction.demand);
    EXPECT_NEAR(predicted, slope, 1e-4 * (1 + std::abs(slope)));
  }
}

TEST(PlanGradient, ThroughEntropicPlans) {
  const Problem problem = testing::random_routing(7, 4, 2);
  const Entropic options{.epsilon = 0.2, .tolerance = 1e-12};
  expect_gradient(
      problem, [&](const Problem& p) { return solve_entropic(p, options); },
      [&](const Plan& plan, const std::vector<double>& weights) {
        return entropic_gradient(problem, plan, options.epsilon, weights);
      });
}

TEST(PlanGradient, ThroughQuadraticPlans) {
  const Problem problem = testing::random_routing(7, 4, 2);
  const Sparse options{.gamma = 0.5, .method = Lbfgs{.tolerance = 1e-12}};
  expect_gradient(
      problem, [&](const Problem& p) { return solve_sparse(p, options); },
      [&](const Plan& plan, const std::vector<double>& weights) {
        return sparse_gradient(problem, plan, options.gamma, weights);
      });
}

TEST(PlanGradient, ThroughLimitedPlans) {
  const Problem problem = testing::golden_problem();
  const Sparse options{.k = 3, .gamma = 4, .method = Lbfgs{.tolerance = 1e-13}};
  ASSERT_TRUE(solve_sparse(problem, options).converged);
  expect_gradient(
      problem, [&](const Problem& p) { return solve_sparse(p, options); },
      [&](const Plan& plan, const std::vector<double>& weights) {
        return sparse_gradient(problem, plan, options.gamma, weights);
      });
}

TEST(PlanGradient, RowsWithoutMassGetNoCostGradient) {
  Problem problem = testing::random_routing(6, 3, 4);
  problem.supply[2] = 0;
  problem.demand = {5.0 / 3, 5.0 / 3, 5.0 / 3};
  const auto weights = waves(problem.cost.size(), 0.1);
  const auto entropic =
      entropic_gradient(problem, solve_entropic(problem, {.epsilon = 0.3}), 0.3, weights);
  const auto sparse = sparse_gradient(problem, solve_sparse(problem, {}), 1.0, weights);
  for (int64_t j = 0; j < 3; ++j) {
    EXPECT_EQ(entropic.cost[2 * 3 + j], 0);
    EXPECT_TRUE(std::isfinite(sparse.cost[2 * 3 + j]));
  }
}

}  // namespace
}  // namespace cadre::transport
