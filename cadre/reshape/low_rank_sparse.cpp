#include "cadre/reshape/low_rank_sparse.h"

#include <Eigen/QR>
#include <Eigen/SVD>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using View = Eigen::Map<const RowMajor>;

constexpr int kPowerRounds = 3;
constexpr int64_t kSpareColumns = 10;

struct Decomposition {
  Eigen::MatrixXf u, v;   ///< [rows, r], [columns, r]
  Eigen::VectorXf sigma;  ///< falling
};

Decomposition decompose_exactly(const View& w) {
  // In double: BDCSVD in float loses orthogonality where singular values lie close.
  const Eigen::BDCSVD<Eigen::MatrixXd> svd(w.cast<double>(),
                                           Eigen::ComputeThinU | Eigen::ComputeThinV);
  return {svd.matrixU().cast<float>(), svd.matrixV().cast<float>(),
          svd.singularValues().cast<float>()};
}

Eigen::MatrixXf orthonormal(const Eigen::MatrixXf& y) {
  const Eigen::HouseholderQR<Eigen::MatrixXf> qr(y);
  return qr.householderQ() * Eigen::MatrixXf::Identity(y.rows(), y.cols());
}

Decomposition decompose_at_random(const View& w, int64_t rank, uint64_t seed) {
  const int64_t width = std::min(rank + kSpareColumns, std::min(w.rows(), w.cols()));
  Random random(seed, {static_cast<uint64_t>(w.rows()), static_cast<uint64_t>(w.cols())});
  Eigen::MatrixXf q(w.cols(), width);
  for (Eigen::Index i = 0; i < q.size(); ++i) q.data()[i] = random.normal();
  q = orthonormal(w * q);
  for (int round = 0; round < kPowerRounds; ++round) {
    q = orthonormal(w.transpose() * q);
    q = orthonormal(w * q);
  }
  const RowMajor small = q.transpose() * w;
  Decomposition found = decompose_exactly(View(small.data(), small.rows(), small.cols()));
  found.u = q * found.u;
  return found;
}

/// Squared length of each row of W - U V.
std::vector<double> missed(const RowMajor& rest) {
  std::vector<double> lengths;
  for (Eigen::Index r = 0; r < rest.rows(); ++r) {
    lengths.push_back(rest.row(r).cast<double>().squaredNorm());
  }
  return lengths;
}

std::vector<int32_t> largest(std::span<const double> values, int64_t count) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

void check(int64_t rows, int64_t columns, const float* w, const LowRankOptions& options) {
  const int64_t most = std::min(rows, columns);
  if (options.rank < 1 || options.rank > most) {
    throw UsageError("low rank: rank {} of a {} x {} matrix, must be from 1 to {}", options.rank,
                     rows, columns, most);
  }
  if (!(options.rows_kept >= 0 && options.rows_kept <= 1)) {
    throw UsageError("low rank: the share of rows kept is {}, must be in [0, 1]",
                     options.rows_kept);
  }
  if (!std::all_of(w, w + rows * columns, [](float x) { return std::isfinite(x); })) {
    throw UsageError("low rank: the matrix has values that are not finite");
  }
}

}  // namespace

LowRankSparse factor_low_rank_sparse(int64_t rows, int64_t columns, const float* w,
                                     const LowRankOptions& options,
                                     std::span<const double> importance) {
  check(rows, columns, w, options);
  const View matrix(w, rows, columns);
  const int64_t rank = options.rank;
  const Decomposition found = std::min(rows, columns) <= options.exact_up_to
                                  ? decompose_exactly(matrix)
                                  : decompose_at_random(matrix, rank, options.seed);
  const Eigen::VectorXf root = found.sigma.head(rank).cwiseSqrt();
  const RowMajor u = found.u.leftCols(rank) * root.asDiagonal();
  const RowMajor v = root.asDiagonal() * found.v.leftCols(rank).transpose();
  const RowMajor rest = matrix - u * v;

  LowRankSparse factors = {.rows = rows, .columns = columns, .rank = rank};
  factors.u.assign(u.data(), u.data() + u.size());
  factors.v.assign(v.data(), v.data() + v.size());
  const auto kept = static_cast<int64_t>(options.rows_kept * static_cast<double>(rows));
  factors.sparse_rows =
      importance.empty() ? largest(missed(rest), kept) : largest(importance, kept);
  for (const int32_t r : factors.sparse_rows) {
    factors.sparse.insert(factors.sparse.end(), rest.row(r).data(), rest.row(r).data() + columns);
  }
  return factors;
}

std::vector<float> expand(const LowRankSparse& factors) {
  RowMajor w = View(factors.u.data(), factors.rows, factors.rank) *
               View(factors.v.data(), factors.rank, factors.columns);
  for (size_t i = 0; i < factors.sparse_rows.size(); ++i) {
    const float* row = factors.sparse.data() + static_cast<int64_t>(i) * factors.columns;
    for (int64_t c = 0; c < factors.columns; ++c) w(factors.sparse_rows[i], c) += row[c];
  }
  return {w.data(), w.data() + w.size()};
}

double stable_rank(int64_t rows, int64_t columns, const float* w) {
  const View matrix(w, rows, columns);
  // Power iteration on W^T W from a vector that no ordinary matrix is orthogonal to.
  Eigen::VectorXd x(columns);
  Random random(1);
  for (Eigen::Index i = 0; i < columns; ++i) x[i] = random.normal();
  double largest_square = 0;
  const Eigen::MatrixXd wide = matrix.cast<double>();
  for (int round = 0; round < 100; ++round) {
    x.normalize();
    x = wide.transpose() * (wide * x);
    const double now = x.norm();
    if (now <= 0) return 0;
    const bool settled = std::fabs(now - largest_square) < 1e-9 * now;
    largest_square = now;
    if (settled) break;
  }
  return wide.squaredNorm() / largest_square;
}

}  // namespace cadre::reshape
