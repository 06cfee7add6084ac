#pragma once

/// Derivatives through a converged plan, by the implicit function theorem: the potentials answer a
/// change of costs or marginals so that the sums of the plan stay right. One linear system in the
/// columns, whatever the solver and however many steps it took.

#include "cadre/routing/transport/problem.h"

namespace cadre::transport {

/// d loss / d cost [rows, columns], supply [rows], demand [columns]. Marginals move together
/// (their totals are equal), so the gradients of supply and demand mean something up to one
/// constant added to one and taken from the other.
struct ProblemGradient {
  std::vector<double> cost, supply, demand;
};

/// Through solve_entropic's plan, from d loss / d mass [rows, columns].
ProblemGradient entropic_gradient(const Problem& problem, const Plan& plan, double epsilon,
                                  const std::vector<double>& mass_gradient);

/// Through solve_sparse's plan. Which entries are above zero is taken as fixed.
ProblemGradient sparse_gradient(const Problem& problem, const Plan& plan, double gamma,
                                const std::vector<double>& mass_gradient);

}  // namespace cadre::transport
