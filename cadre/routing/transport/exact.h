#pragma once

/// The transport problem without regulariser, min <T, C>, solved exactly: shortest augmenting paths
/// with potentials, the Hungarian algorithm (Kuhn, 1955; Edmonds and Karp, "Theoretical
/// Improvements in Algorithmic Efficiency for Network Flow Problems", 1972) with masses in the
/// place of ones. Its plan is a vertex: at most about rows + columns nonzeros; with integer
/// marginals it is an integer assignment. Paths run over the columns only, so that 1024 rows on 64
/// columns take milliseconds.

#include "cadre/routing/transport/problem.h"

namespace cadre::transport {

/// plan.bound == plan.objective up to rounding: the potentials prove that the plan is optimal
/// (alpha_i + beta_j <= C_ij everywhere, equal where T_ij > 0). Throws UsageError as check() does.
Plan solve_exact(const Problem& problem);

/// Moves the potentials of an exact plan to the middle of all that prove it optimal, so that pairs
/// outside the plan have slack wherever any proof gives them some; the potentials that
/// solve_exact() ends with lie at an edge. Costs columns^3. From these alpha the sparse solvers
/// start best: where k = rows / columns and the marginals are uniform, at their maximum itself.
void centre_potentials(const Problem& problem, Plan& plan);

}  // namespace cadre::transport
