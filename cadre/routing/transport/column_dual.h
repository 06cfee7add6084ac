#pragma once

/// The two concave functions whose maximum is the cost of a transport plan with a squared norm and
/// at most k nonzeros a column (Liu, Puigcerver, Blondel, "Sparsity-Constrained Optimal Transport",
/// 2023, sec. 4): the problem itself is not convex, these are, and each column needs no more than a
/// selection of k entries and a projection.
///
///   semi-dual: D(alpha) = alpha.a - sum_j max { t.(alpha - c_j) - gamma/2 |t|^2 : t >= 0,
///              sum t = b_j, at most k nonzeros }; column sums hold everywhere
///   dual:      D(alpha, beta) = alpha.a + beta.b - sum_j 1/(2 gamma) * sum over the k largest s of
///              max(s, 0)^2, s = alpha + beta_j - c_j
/// In both T_ij = max(alpha_i + beta_j - C_ij, 0) / gamma on the k entries kept, and the gradient
/// is the marginals minus the sums of T: where it vanishes, T is feasible and optimal. The k best
/// are kept by lower index among equals, so that the same input gives the same plan everywhere.

#include "cadre/routing/transport/problem.h"

namespace cadre::transport {

enum class DualForm { kSemiDual, kDual };

class ColumnDual {
 public:
  /// `problem` must outlive the object and be sound (check()); gamma > 0, k >= 1.
  ColumnDual(const Problem& problem, DualForm form, double gamma, int64_t k);

  /// How many variables: rows, or rows + columns.
  int64_t size() const;
  /// The value at x = alpha, or alpha followed by beta; writes the gradient.
  double evaluate(const std::vector<double>& x, std::vector<double>& gradient);

  /// Of the last evaluation: the plan [rows, columns] and beta.
  std::vector<double> mass() const;
  std::vector<double> beta() const;

 private:
  /// A column of the plan: what its kept rows send, the maximum it contributes, its potential.
  struct Column {
    std::vector<int32_t> rows;
    std::vector<double> mass;
    double value = 0, beta = 0;
  };
  struct Scratch;

  void solve_column(int64_t j, const double* x, Scratch& scratch);
  void solve_semi_dual(int64_t j, Column& column, Scratch& scratch) const;
  void solve_dual(Column& column, const Scratch& scratch) const;

  const Problem& problem_;
  const DualForm form_;
  const double gamma_;
  const int64_t k_;
  std::vector<double> cost_by_column_;  ///< [columns, rows]
  std::vector<Column> columns_;
};

}  // namespace cadre::transport
