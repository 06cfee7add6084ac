#pragma once

/// Discrete optimal transport: how to move the mass of m rows (tokens, neurons) to n columns
/// (experts) at the least cost. The solvers of this folder stand on this problem and know no torch:
///   exact.h     min <T, C>: the linear program itself
///   sinkhorn.h  + entropy: dense plans
///   sparse.h    + squared norm, with at most k nonzeros a column or without limit
///   plan_gradient.h  the derivative of the last two plans

#include <cstdint>
#include <vector>

namespace cadre::transport {

struct Problem {
  int64_t rows = 0, columns = 0;
  std::vector<double> cost;    ///< C [rows, columns], finite
  std::vector<double> supply;  ///< a [rows], not negative: what each row sends
  std::vector<double> demand;  ///< b [columns], not negative: what each column receives
};

/// A plan with the potentials that found it.
struct Plan {
  std::vector<double> mass;         ///< T [rows, columns], not negative
  std::vector<double> alpha, beta;  ///< potentials of rows and columns
  double objective = 0;             ///< of T: <T, C> + regulariser
  /// The dual's value at the potentials: no feasible plan costs less.
  double bound = 0;
  double row_error = 0, column_error = 0;  ///< largest |sum of T - marginal|
  int64_t iterations = 0;
  /// The errors are within the tolerance asked for.
  bool converged = false;
};

/// Throws UsageError, naming what does not fit: sizes, costs or marginals that are not finite,
/// negative marginals, totals that differ by more than 1e-6 of their size.
void check(const Problem& problem);

/// Throws UsageError when no plan with at most k nonzeros a column can exist: too few places for
/// the rows, or a column that needs more than its k largest rows send. (What passes may still have
/// no such plan: to decide that is NP-hard.)
void check_cardinality(const Problem& problem, int64_t k);

/// <T, C>.
double linear_cost(const Problem& problem, const std::vector<double>& mass);

/// Sets row_error and column_error of `plan` from its mass.
void measure_errors(const Problem& problem, Plan& plan);

/// The problem with rows and columns swapped: a limit per column becomes one per row.
Problem transposed(const Problem& problem);

}  // namespace cadre::transport
