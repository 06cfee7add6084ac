#pragma once

/// Entropic transport, min <T, C> + epsilon sum T (log T - 1) (Cuturi, "Sinkhorn Distances", 2013),
/// stabilised in the log domain (Schmitzer, "Stabilized Sparse Scaling Algorithms for Entropy
/// Regularized Transport Problems", 2019): scalings are absorbed into the potentials before they
/// overflow. T_ij = exp((alpha_i + beta_j - C_ij) / epsilon): every row sends a little everywhere.

#include "cadre/routing/transport/problem.h"

namespace cadre::transport {

struct Entropic {
  double epsilon = 0.05;  ///< in units of the cost; smaller = sharper and slower
  int64_t max_iterations = 10000;
  double tolerance = 1e-9;  ///< of row_error, relative to the largest supply
};

/// Column sums are exact, row sums within the tolerance when converged. Throws UsageError as
/// check() does, and for options out of range.
Plan solve_entropic(const Problem& problem, const Entropic& options);

}  // namespace cadre::transport
