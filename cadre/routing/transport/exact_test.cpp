#include "cadre/routing/transport/exact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/routing/transport/problem_test_kit.h"

namespace cadre::transport {
namespace {

using ::testing::HasSubstr;

std::string refusal(const Problem& problem) {
  try {
    solve_exact(problem);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

/// Feasible, and proven by its own potentials.
void expect_proven(const Problem& problem, const Plan& plan) {
  EXPECT_LT(plan.row_error, 1e-9);
  EXPECT_LT(plan.column_error, 1e-9);
  EXPECT_NEAR(plan.bound, plan.objective, 1e-9 * (1 + std::abs(plan.bound)));
  for (int64_t i = 0; i < problem.rows; ++i) {
    for (int64_t j = 0; j < problem.columns; ++j) {
      const int64_t cell = i * problem.columns + j;
      EXPECT_GE(plan.mass[cell], 0);
      if (problem.supply[i] == 0 || problem.demand[j] == 0) continue;
      const double slack = problem.cost[cell] - plan.alpha[i] - plan.beta[j];
      EXPECT_GE(slack, -1e-9);
      if (plan.mass[cell] > 0) {
        EXPECT_NEAR(slack, 0, 1e-9);
      }
    }
  }
}

TEST(ExactTransport, GoldenProblem) {
  const Plan plan = solve_exact(testing::golden_problem());
  EXPECT_EQ(plan.mass, (std::vector<double>{0.25, 0, 0.25, 0, 0, 0.25, 0, 0.25}));
  EXPECT_NEAR(plan.objective, 0.125, 1e-12);
}

TEST(ExactTransport, MatchesTheCheapestVertexOfTheLinearProgram) {
  for (const auto& [rows, columns] :
       {std::pair<int64_t, int64_t>{1, 1}, {1, 4}, {5, 1}, {2, 2}, {3, 4}, {5, 3}}) {
    for (uint64_t seed = 0; seed < 8; ++seed) {
      const Problem problem = testing::random_problem(rows, columns, seed);
      const Plan plan = solve_exact(problem);
      EXPECT_NEAR(plan.objective, testing::cheapest_vertex(problem), 1e-10)
          << rows << "x" << columns << " seed " << seed;
      expect_proven(problem, plan);
    }
  }
}

TEST(ExactTransport, PotentialsProveLargerPlans) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const Problem problem = testing::random_problem(60, 11, seed);
    Plan plan = solve_exact(problem);
    expect_proven(problem, plan);
    centre_potentials(problem, plan);
    expect_proven(problem, plan);
  }
}

TEST(ExactTransport, IntegerMarginalsGiveIntegerPlans) {
  const Plan plan = solve_exact(testing::random_routing(40, 8, 3));
  for (const double mass : plan.mass) EXPECT_TRUE(mass == 0 || mass == 1) << mass;
}

TEST(ExactTransport, CentredPotentialsHaveSlackOutsideThePlan) {
  const Problem problem = testing::random_routing(40, 8, 3);
  Plan plan = solve_exact(problem);
  centre_potentials(problem, plan);
  for (size_t cell = 0; cell < problem.cost.size(); ++cell) {
    if (plan.mass[cell] > 0) continue;
    EXPECT_GT(problem.cost[cell] - plan.alpha[cell / 8] - plan.beta[cell % 8], 1e-6);
  }
}

TEST(ExactTransport, TiesAndEqualCosts) {
  Problem problem = testing::random_problem(12, 5, 1);
  std::fill(problem.cost.begin(), problem.cost.end(), 0.5);
  const Plan plan = solve_exact(problem);
  EXPECT_NEAR(plan.objective, 0.5, 1e-12);
  expect_proven(problem, plan);
}

TEST(ExactTransport, RefusesWhatNoPlanCanDo) {
  EXPECT_THAT(refusal({}), HasSubstr("0 rows"));
  Problem problem = testing::golden_problem();
  problem.demand[1] = 0.7;
  EXPECT_THAT(refusal(problem), HasSubstr("rows send 1 in total, columns receive 1.2"));
  problem = testing::golden_problem();
  problem.supply[2] = -0.25;
  EXPECT_THAT(refusal(problem), HasSubstr("supply[2] is -0.25"));
  problem = testing::golden_problem();
  problem.cost[5] = NAN;
  EXPECT_THAT(refusal(problem), HasSubstr("row 2, column 1"));
  problem = testing::golden_problem();
  problem.demand.pop_back();
  EXPECT_THAT(refusal(problem), HasSubstr("demand has 1 entries, must have 2"));
  problem = testing::golden_problem();
  problem.cost.pop_back();
  EXPECT_THAT(refusal(problem), HasSubstr("must be [4, 2]"));
}

}  // namespace
}  // namespace cadre::transport
