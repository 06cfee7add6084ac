#include "cadre/routing/transport/sinkhorn.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/routing/transport/exact.h"
#include "cadre/routing/transport/problem_test_kit.h"

namespace cadre::transport {
namespace {

TEST(Sinkhorn, MeetsItsMarginalsAndItsBound) {
  for (const double epsilon : {1.0, 0.1, 0.01}) {
    for (uint64_t seed = 0; seed < 4; ++seed) {
      const Problem problem = testing::random_problem(9, 6, seed);
      const Plan plan = solve_entropic(problem, {.epsilon = epsilon});
      EXPECT_TRUE(plan.converged);
      EXPECT_LT(plan.row_error, 1e-8);
      EXPECT_LT(plan.column_error, 1e-12);
      EXPECT_NEAR(plan.bound, plan.objective, 1e-7);
    }
  }
}

TEST(Sinkhorn, TwoByTwoClosedForm) {
  // T = [[x, 1/2 - x], [1/2 - x, x]] with (x / (1/2 - x))^2 = exp((c_12 + c_21 - c_11 - c_22) /
  // eps).
  const Problem problem{.rows = 2,
                        .columns = 2,
                        .cost = {0, 0.7, 0.5, 0.1},
                        .supply = {0.5, 0.5},
                        .demand = {0.5, 0.5}};
  const Plan plan = solve_entropic(problem, {.epsilon = 0.4});
  const double odds = std::exp((0.7 + 0.5 - 0.1) / 0.4 / 2);
  EXPECT_NEAR(plan.mass[0], 0.5 * odds / (1 + odds), 1e-9);
  EXPECT_NEAR(plan.mass[1], 0.5 / (1 + odds), 1e-9);
}

TEST(Sinkhorn, SharpensToTheExactPlan) {
  const Problem problem = testing::random_problem(8, 5, 2);
  const double exact = solve_exact(problem).objective;
  double before = 1e9;
  for (const double epsilon : {0.1, 0.01, 0.001}) {
    const Plan plan = solve_entropic(problem, {.epsilon = epsilon, .tolerance = 1e-7});
    const double cost = linear_cost(problem, plan.mass);
    EXPECT_GE(cost, exact - 1e-6);
    EXPECT_LE(cost, before + 1e-9);
    before = cost;
  }
  EXPECT_NEAR(before, exact, 0.01);
}

TEST(Sinkhorn, CostsThatOverflowPlainSinkhorn) {
  Problem problem = testing::random_problem(7, 4, 5);
  for (double& cost : problem.cost) cost = cost * 5000 - 2500;
  const Plan plan = solve_entropic(problem, {.epsilon = 10, .tolerance = 1e-6});
  EXPECT_TRUE(plan.converged);
  for (const double mass : plan.mass) EXPECT_TRUE(std::isfinite(mass));
}

TEST(Sinkhorn, AnUnfinishedPlanSaysSo) {
  Problem problem = testing::random_problem(30, 20, 5);
  const Plan plan = solve_entropic(problem, {.epsilon = 1e-3, .max_iterations = 3});
  EXPECT_FALSE(plan.converged);
  EXPECT_GT(plan.row_error, 1e-9);
  EXPECT_LT(plan.column_error, 1e-12);
}

TEST(Sinkhorn, RefusesImpossibleOptions) {
  const Problem problem = testing::golden_problem();
  EXPECT_THROW(solve_entropic(problem, {.epsilon = 0}), UsageError);
  EXPECT_THROW(solve_entropic(problem, {.epsilon = NAN}), UsageError);
  EXPECT_THROW(solve_entropic(problem, {.max_iterations = 0}), UsageError);
  EXPECT_THROW(solve_entropic({}, {}), UsageError);
}

}  // namespace
}  // namespace cadre::transport
