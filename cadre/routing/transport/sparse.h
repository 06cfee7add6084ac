#pragma once

/// Transport with a squared norm, min <T, C> + gamma/2 sum T^2, and at most k nonzeros a column
/// (Liu, Puigcerver, Blondel, "Sparsity-Constrained Optimal Transport", 2023). Without a limit it
/// is quadratically regularised transport (Blondel, Seguy, Rolet, "Smooth and Sparse Optimal
/// Transport", 2018), whose plans are sparse too, but how sparse nobody can say beforehand. For at
/// most k nonzeros a row, solve the transposed problem.

#include <optional>
#include <variant>

#include "cadre/routing/transport/ascent.h"
#include "cadre/routing/transport/column_dual.h"

namespace cadre::transport {

struct Sparse {
  std::optional<int64_t> k = {};  ///< nonzeros a column; absent = no limit
  double gamma = 1.0;             ///< in units of cost / mass
  DualForm form = DualForm::kSemiDual;
  /// L-BFGS to a tolerance (relative to the largest supply), or a few steps of Adam, as the paper's
  /// router does. Adam moves a potential by at most steps * learning_rate: scale it with the costs.
  std::variant<Lbfgs, Adam> method = Lbfgs{};
  std::vector<double> start = {};  ///< alpha (and beta, in the dual form); empty = zeros
};

/// Column sums (semi-dual) and cardinality hold at every iterate, row sums only at the optimum: and
/// when there the k-th and the next entry of a column tie, T need not come near them, though
/// `bound` is right. Then T is a selection rather than a plan; row_error tells. Throws UsageError
/// as check() and check_cardinality() do, and for options out of range.
Plan solve_sparse(const Problem& problem, const Sparse& options);

}  // namespace cadre::transport
