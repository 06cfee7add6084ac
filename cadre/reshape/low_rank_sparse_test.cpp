#include "cadre/reshape/low_rank_sparse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <Eigen/SVD>
#include <cmath>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

std::vector<float> random_matrix(int64_t rows, int64_t columns, uint64_t seed) {
  Random random(seed);
  std::vector<float> w(static_cast<size_t>(rows * columns));
  for (float& x : w) x = random.normal();
  return w;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(double{a[i]} - b[i], 2);
  return sum;
}

std::vector<double> singular_values(int64_t rows, int64_t columns, const std::vector<float>& w) {
  const Eigen::MatrixXd m =
      Eigen::Map<const Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>(
          w.data(), rows, columns)
          .cast<double>();
  const Eigen::VectorXd sigma = Eigen::JacobiSVD<Eigen::MatrixXd>(m).singularValues();
  return {sigma.begin(), sigma.end()};
}

TEST(LowRankSparse, ErrorIsTheDiscardedSingularValues) {
  // Eckart and Young (1936).
  for (const auto& [rows, columns] : {std::pair{24, 17}, {17, 24}, {8, 8}}) {
    const auto w = random_matrix(rows, columns, 1);
    const auto sigma = singular_values(rows, columns, w);
    for (const int64_t rank : {1, 3, 8}) {
      const auto factors =
          factor_low_rank_sparse(rows, columns, w.data(), {.rank = rank, .rows_kept = 0});
      double discarded = 0;
      for (size_t i = static_cast<size_t>(rank); i < sigma.size(); ++i) {
        discarded += sigma[i] * sigma[i];
      }
      EXPECT_NEAR(squared_error(expand(factors), w), discarded, 1e-4 * (1 + discarded));
    }
  }
}

TEST(LowRankSparse, FullRankOrAllRowsAreTheMatrix) {
  const auto w = random_matrix(20, 12, 2);
  const auto full = factor_low_rank_sparse(20, 12, w.data(), {.rank = 12, .rows_kept = 0});
  EXPECT_LT(squared_error(expand(full), w), 1e-8);
  const auto rows = factor_low_rank_sparse(20, 12, w.data(), {.rank = 1, .rows_kept = 1});
  EXPECT_LT(squared_error(expand(rows), w), 1e-8);
}

TEST(LowRankSparse, RowsChosenAreThoseMissedMostOrAsked) {
  auto w = random_matrix(10, 6, 3);
  for (int64_t c = 0; c < 6; ++c) w[static_cast<size_t>(4 * 6 + c)] *= c % 2 == 0 ? 3.0F : -3.0F;
  const auto dense = expand(factor_low_rank_sparse(10, 6, w.data(), {.rank = 1, .rows_kept = 0}));
  const auto found = factor_low_rank_sparse(10, 6, w.data(), {.rank = 1, .rows_kept = 0.29});
  ASSERT_EQ(found.sparse_rows.size(), 2U);
  const auto missed = [&](int32_t r) {
    double sum = 0;
    for (size_t c = 0; c < 6; ++c) {
      const size_t at = static_cast<size_t>(r) * 6 + c;
      sum += std::pow(double{w[at]} - dense[at], 2);
    }
    return sum;
  };
  for (int32_t r = 0; r < 10; ++r) {
    if (r == found.sparse_rows[0] || r == found.sparse_rows[1]) continue;
    EXPECT_LE(missed(r), std::min(missed(found.sparse_rows[0]), missed(found.sparse_rows[1])));
  }
  const std::vector<double> asked = {0, 0, 0, 9, 0, 0, 0, 0, 8, 0};
  EXPECT_THAT(
      factor_low_rank_sparse(10, 6, w.data(), {.rank = 1, .rows_kept = 0.2}, asked).sparse_rows,
      ::testing::ElementsAre(3, 8));
}

TEST(LowRankSparse, RandomisedIsNearlyAsGood) {
  // A falling spectrum, as trained weights have.
  const int64_t rows = 90, columns = 70;
  auto w = random_matrix(rows, columns, 4);
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t r = 0; r < rows; ++r) {
      w[static_cast<size_t>(r * columns + c)] /= static_cast<float>(1 + c);
    }
  }
  LowRankOptions options = {.rank = 10, .rows_kept = 0};
  const double exact =
      squared_error(expand(factor_low_rank_sparse(rows, columns, w.data(), options)), w);
  options.exact_up_to = 0;
  const double random =
      squared_error(expand(factor_low_rank_sparse(rows, columns, w.data(), options)), w);
  EXPECT_LT(random, 1.001 * exact);
}

TEST(LowRankSparse, StableRankOfKnownMatrices) {
  std::vector<float> identity(25, 0.0F);
  for (size_t i = 0; i < 5; ++i) identity[i * 6] = 2;
  EXPECT_NEAR(stable_rank(5, 5, identity.data()), 5, 1e-6);
  const std::vector<float> ones(12, 1.0F);
  EXPECT_NEAR(stable_rank(3, 4, ones.data()), 1, 1e-6);
  const std::vector<float> zeros(12, 0.0F);
  EXPECT_EQ(stable_rank(3, 4, zeros.data()), 0);
}

TEST(LowRankSparse, RefusesWhatCannotBe) {
  auto w = random_matrix(4, 4, 5);
  EXPECT_THROW(factor_low_rank_sparse(4, 4, w.data(), {.rank = 5}), UsageError);
  EXPECT_THROW(factor_low_rank_sparse(4, 4, w.data(), {.rank = 1, .rows_kept = 2}), UsageError);
  w[3] = INFINITY;
  EXPECT_THROW(factor_low_rank_sparse(4, 4, w.data(), {.rank = 1}), UsageError);
}

}  // namespace
}  // namespace cadre::reshape
