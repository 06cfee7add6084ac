#include "cadre/routing/transport/sparse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/routing/transport/exact.h"
#include "cadre/routing/transport/problem_test_kit.h"
#include "cadre/routing/transport/simplex.h"

namespace cadre::transport {
namespace {

using ::testing::HasSubstr;

void expect_plan(const Plan& plan, const std::vector<double>& mass, double value) {
  EXPECT_TRUE(plan.converged);
  EXPECT_NEAR(plan.bound, value, 1e-6);
  EXPECT_NEAR(plan.objective, value, 1e-6);
  for (size_t cell = 0; cell < mass.size(); ++cell) EXPECT_NEAR(plan.mass[cell], mass[cell], 1e-6);
}

class GoldenProblem : public ::testing::TestWithParam<DualForm> {};
INSTANTIATE_TEST_SUITE_P(Forms, GoldenProblem,
                         ::testing::Values(DualForm::kSemiDual, DualForm::kDual));

TEST_P(GoldenProblem, PlansByHand) {
  const Problem problem = testing::golden_problem();
  const auto plan = [&](int64_t k, double gamma) {
    return solve_sparse(problem, {.k = k, .gamma = gamma, .form = GetParam()});
  };
  const std::vector<double> assignment{0.25, 0, 0.25, 0, 0, 0.25, 0, 0.25};
  expect_plan(plan(2, 1), assignment, 0.25);
  expect_plan(plan(2, 4), assignment, 0.625);
  expect_plan(plan(3, 4), {0.25, 0, 0.20, 0.05, 0.05, 0.20, 0, 0.25}, 0.605);
  expect_plan(plan(4, 4),
              {29.0 / 120, 1.0 / 120, 49.0 / 240, 11.0 / 240, 13.0 / 240, 47.0 / 240, 0, 0.25},
              0.6045833);
}

TEST(SparseTransport, ValueOfTheInfeasibleLimitIsTheLinearProgramsPlusNorm) {
  const Problem problem = testing::golden_problem();
  ColumnDual dual(problem, DualForm::kSemiDual, 1.0, 1);
  const auto function = [&](const std::vector<double>& x, std::vector<double>& gradient) {
    return dual.evaluate(x, gradient);
  };
  const Maximum maximum =
      maximize(function, std::vector<double>(4, 0.0), Adam{.steps = 4000, .learning_rate = 0.02});
  EXPECT_NEAR(maximum.value, 0.375, 1e-4);
}

TEST(SparseTransport, EqualPlacesGiveTheBalancedAssignment) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Problem problem = testing::random_routing(12, 3, seed);
    Plan exact = solve_exact(problem);
    const double value = exact.objective + 12 / 2.0;
    const Plan cold = solve_sparse(problem, {.k = 4});
    EXPECT_LE(cold.bound, value + 1e-9);
    centre_potentials(problem, exact);
    const Plan warm = solve_sparse(problem, {.k = 4, .start = exact.alpha});
    EXPECT_TRUE(warm.converged);
    EXPECT_NEAR(warm.bound, value, 1e-6);
    for (size_t cell = 0; cell < exact.mass.size(); ++cell) {
      EXPECT_NEAR(warm.mass[cell], exact.mass[cell], 1e-9);
    }
  }
}

TEST(SparseTransport, BoundsEveryFeasiblePlan) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const Problem problem = testing::random_problem(10, 4, seed);
    // The exact plan is feasible for any limit that its own columns keep.
    const Plan exact = solve_exact(problem);
    const double gamma = 0.5;
    double cost = exact.objective;
    std::vector<int64_t> nonzeros(4, 0);
    for (size_t cell = 0; cell < exact.mass.size(); ++cell) {
      cost += gamma / 2 * exact.mass[cell] * exact.mass[cell];
      nonzeros[cell % 4] += exact.mass[cell] > 0 ? 1 : 0;
    }
    const int64_t k = *std::max_element(nonzeros.begin(), nonzeros.end());
    for (const DualForm form : {DualForm::kSemiDual, DualForm::kDual}) {
      EXPECT_LE(solve_sparse(problem, {.k = k, .gamma = gamma, .form = form}).bound, cost + 1e-9);
    }
  }
}

TEST(SparseTransport, LooserLimitsNeverCostMore) {
  const Problem problem = testing::random_routing(12, 4, 7);
  double before = std::numeric_limits<double>::infinity();
  for (int64_t k = 3; k <= 12; ++k) {
    const double bound = solve_sparse(problem, {.k = k}).bound;
    EXPECT_LE(bound, before + 1e-6);
    before = bound;
  }
}

TEST(SparseTransport, ColumnsAndCardinalityHoldBeforeConvergence) {
  const Problem problem = testing::random_problem(30, 5, 4);
  const Plan plan = solve_sparse(problem, {.k = 9, .method = Adam{.steps = 5}});
  EXPECT_LT(plan.column_error, 1e-12);
  EXPECT_FALSE(plan.converged);
  for (int64_t j = 0; j < 5; ++j) {
    int64_t nonzeros = 0;
    for (int64_t i = 0; i < 30; ++i) nonzeros += plan.mass[i * 5 + j] > 0 ? 1 : 0;
    EXPECT_LE(nonzeros, 9);
  }
}

TEST(SparseTransport, QuadraticPlansConvergeInBothForms) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const Problem problem = testing::random_problem(20, 6, seed);
    const Plan semi = solve_sparse(problem, {.gamma = 2});
    const Plan dual = solve_sparse(problem, {.gamma = 2, .form = DualForm::kDual});
    EXPECT_TRUE(semi.converged);
    EXPECT_TRUE(dual.converged);
    EXPECT_NEAR(semi.objective, dual.objective, 1e-7);
    EXPECT_NEAR(semi.bound, semi.objective, 1e-7);
  }
}

TEST(SparseTransport, LimitPerRowByTransposing) {
  const Problem problem = testing::random_routing(8, 4, 2);
  const Plan plan = solve_sparse(transposed(problem), {.k = 2});
  for (int64_t row = 0; row < 8; ++row) {
    int64_t nonzeros = 0;
    for (int64_t j = 0; j < 4; ++j) nonzeros += plan.mass[j * 8 + row] > 0 ? 1 : 0;
    EXPECT_LE(nonzeros, 2);
  }
}

TEST(SparseTransport, GradientOfBothFormsByCentralDifferences) {
  const Problem problem = testing::random_problem(9, 4, 3);
  for (const DualForm form : {DualForm::kSemiDual, DualForm::kDual}) {
    ColumnDual dual(problem, form, 0.7, 3);
    std::vector<double> x(dual.size()), gradient(x.size()), unused(x.size());
    for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(static_cast<double>(3 * i + 1));
    dual.evaluate(x, gradient);
    for (size_t i = 0; i < x.size(); ++i) {
      constexpr double kStep = 1e-5;
      std::vector<double> up = x, down = x;
      up[i] += kStep;
      down[i] -= kStep;
      const double slope = (dual.evaluate(up, unused) - dual.evaluate(down, unused)) / (2 * kStep);
      EXPECT_NEAR(gradient[i], slope, 1e-5) << "variable " << i;
    }
  }
}

std::string refusal(const Problem& problem, const Sparse& options) {
  try {
    solve_sparse(problem, options);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(SparseTransport, RefusesWhatNoPlanCanDo) {
  const Problem problem = testing::golden_problem();
  EXPECT_THAT(refusal(problem, {.k = 1}), HasSubstr("2 places for 4 rows; use k >= 2"));
  EXPECT_THAT(refusal(problem, {.k = 0}), HasSubstr("k is 0"));
  EXPECT_THAT(refusal(problem, {.gamma = 0}), HasSubstr("gamma is 0"));
  EXPECT_THAT(refusal(problem, {.start = {1.0}}), HasSubstr("must have 4"));
  Problem uneven = testing::random_routing(6, 3, 1);
  uneven.demand = {4, 1, 1};
  EXPECT_THAT(refusal(uneven, {.k = 2}), HasSubstr("column 0 receives 4"));
}

TEST(Simplex, KeepsTheLargestTiesByIndex) {
  const std::vector<double> x{1, 3, 2, 3, 2, 2};
  std::vector<int32_t> ids;
  std::vector<double> scratch;
  keep_largest(x.data(), 6, 4, ids, scratch);
  EXPECT_EQ(ids, (std::vector<int32_t>{1, 2, 3, 4}));
  keep_largest(x.data(), 6, 9, ids, scratch);
  EXPECT_EQ(ids.size(), 6);
}

TEST(Simplex, ProjectsLikeTheSortedRule) {
  std::mt19937_64 generator(1);
  std::normal_distribution<double> normal;
  for (int size = 1; size < 40; ++size) {
    std::vector<double> v(size);
    for (double& value : v) value = std::round(4 * normal(generator)) / 4;
    std::vector<double> sorted = v;
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    double sum = 0, theta = 0;
    for (int i = 0; i < size; ++i) {
      sum += sorted[i];
      if (sorted[i] - (sum - 1) / (i + 1) > 0) theta = (sum - 1) / (i + 1);
    }
    EXPECT_NEAR(project_on_simplex(v), theta, 1e-12);
    double total = 0;
    for (const double value : v) total += value;
    EXPECT_NEAR(total, 1, 1e-12);
  }
}

}  // namespace
}  // namespace cadre::transport
