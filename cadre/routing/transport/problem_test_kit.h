#pragma once

/// Problems for the solvers' tests, and an independent answer to the small ones.

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "cadre/routing/transport/problem.h"

namespace cadre::transport::testing {

/// Four rows, two columns, small enough to solve by hand.
inline Problem golden_problem() {
  return {.rows = 4,
          .columns = 2,
          .cost = {0, 1, 0.2, 0.9, 0.8, 0.3, 1, 0},
          .supply = {0.25, 0.25, 0.25, 0.25},
          .demand = {0.5, 0.5}};
}

inline Problem random_costs(int64_t rows, int64_t columns, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::uniform_real_distribution<double> uniform(0, 1);
  Problem problem{.rows = rows, .columns = columns};
  for (int64_t i = 0; i < rows * columns; ++i) problem.cost.push_back(uniform(generator));
  return problem;
}

/// A router's problem: each row sends 1, each column receives rows / columns.
inline Problem random_routing(int64_t rows, int64_t columns, uint64_t seed) {
  Problem problem = random_costs(rows, columns, seed);
  problem.supply.assign(rows, 1.0);
  problem.demand.assign(columns, static_cast<double>(rows) / static_cast<double>(columns));
  return problem;
}

/// Marginals of random size, some of them zero.
inline Problem random_problem(int64_t rows, int64_t columns, uint64_t seed) {
  Problem problem = random_costs(rows, columns, seed);
  std::mt19937_64 generator(seed + 1000);
  std::uniform_real_distribution<double> uniform(0, 1);
  const auto masses = [&](int64_t size) {
    std::vector<double> values(size);
    for (double& value : values) value = uniform(generator) < 0.2 ? 0 : uniform(generator) + 0.1;
    values[0] = 1;
    const double total = Eigen::Map<Eigen::VectorXd>(values.data(), size).sum();
    for (double& value : values) value /= total;
    return values;
  };
  problem.supply = masses(rows);
  problem.demand = masses(columns);
  return problem;
}

/// The least <T, C> over the vertices of the linear program's polytope, all of which it visits:
/// each choice of rows + columns - 1 cells that determines a plan with no negative entry.
inline double cheapest_vertex(const Problem& problem) {
  const int64_t rows = problem.rows, columns = problem.columns, cells = rows * columns;
  const int64_t basis = rows + columns - 1;
  Eigen::VectorXd marginals(basis);
  for (int64_t i = 0; i < rows; ++i) marginals[i] = problem.supply[i];
  for (int64_t j = 0; j + 1 < columns; ++j) marginals[rows + j] = problem.demand[j];
  std::vector<int> chosen(cells, 0);
  std::fill(chosen.begin(), chosen.begin() + basis, 1);
  double least = std::numeric_limits<double>::infinity();
  do {
    Eigen::MatrixXd system = Eigen::MatrixXd::Zero(basis, basis);
    Eigen::VectorXd cost(basis);
    int64_t variable = 0;
    for (int64_t cell = 0; cell < cells; ++cell) {
      if (!chosen[cell]) continue;
      system(cell / columns, variable) = 1;
      if (cell % columns < columns - 1) system(rows + cell % columns, variable) = 1;
      cost[variable++] = problem.cost[cell];
    }
    const auto factors = system.fullPivLu();
    if (!factors.isInvertible()) continue;
    const Eigen::VectorXd mass = factors.solve(marginals);
    if (mass.minCoeff() > -1e-12) least = std::min(least, mass.dot(cost));
  } while (std::prev_permutation(chosen.begin(), chosen.end()));
  return least;
}

}  // namespace cadre::transport::testing
