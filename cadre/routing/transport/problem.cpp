#include "cadre/routing/transport/problem.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <string_view>

#include "cadre/base/error.h"

namespace cadre::transport {
namespace {

/// Marginals come from sums of floats: what rounding leaves is no fault of the caller.
constexpr double kTotalsAgree = 1e-6;

double total(const std::vector<double>& masses) {
  return std::accumulate(masses.begin(), masses.end(), 0.0);
}

void check_marginal(const std::vector<double>& masses, int64_t size, std::string_view name) {
  if (static_cast<int64_t>(masses.size()) != size) {
    throw UsageError("transport: {} has {} entries, must have {}", name, masses.size(), size);
  }
  for (size_t i = 0; i < masses.size(); ++i) {
    if (masses[i] >= 0 && std::isfinite(masses[i])) continue;
    throw UsageError("transport: {}[{}] is {}, must be finite and not negative", name, i,
                     masses[i]);
  }
}

}  // namespace

void check(const Problem& problem) {
  if (problem.rows < 1 || problem.columns < 1) {
    throw UsageError("transport: {} rows and {} columns, there must be at least one of each",
                     problem.rows, problem.columns);
  }
  if (static_cast<int64_t>(problem.cost.size()) != problem.rows * problem.columns) {
    throw UsageError("transport: the cost has {} entries, must be [{}, {}]", problem.cost.size(),
                     problem.rows, problem.columns);
  }
  check_marginal(problem.supply, problem.rows, "supply");
  check_marginal(problem.demand, problem.columns, "demand");
  for (size_t i = 0; i < problem.cost.size(); ++i) {
    if (std::isfinite(problem.cost[i])) continue;
    throw UsageError("transport: the cost of row {}, column {} is {}, must be finite",
                     i / problem.columns, i % problem.columns, problem.cost[i]);
  }
  const double sent = total(problem.supply), received = total(problem.demand);
  if (std::abs(sent - received) > kTotalsAgree * std::max(sent, received)) {
    throw UsageError("transport: rows send {} in total, columns receive {}: no plan can do both",
                     sent, received);
  }
}

void check_cardinality(const Problem& problem, int64_t k) {
  if (k < 1) throw UsageError("transport: k is {}, must be at least 1", k);
  if (k >= problem.rows) return;
  const auto sending = std::count_if(problem.supply.begin(), problem.supply.end(),
                                     [](double mass) { return mass > 0; });
  if (k * problem.columns < sending) {
    throw UsageError(
        "transport: {} columns of at most {} nonzeros have {} places for {} rows; use k >= {}",
        problem.columns, k, k * problem.columns, sending,
        (sending + problem.columns - 1) / problem.columns);
  }
  std::vector<double> largest = problem.supply;
  std::partial_sort(largest.begin(), largest.begin() + k, largest.end(), std::greater<>());
  const double most = std::accumulate(largest.begin(), largest.begin() + k, 0.0);
  for (int64_t j = 0; j < problem.columns; ++j) {
    if (problem.demand[j] <= most * (1 + kTotalsAgree)) continue;
    throw UsageError("transport: column {} receives {}, but the {} largest rows send only {}", j,
                     problem.demand[j], k, most);
  }
}

double linear_cost(const Problem& problem, const std::vector<double>& mass) {
  return std::inner_product(mass.begin(), mass.end(), problem.cost.begin(), 0.0);
}

void measure_errors(const Problem& problem, Plan& plan) {
  std::vector<double> received(problem.columns, 0.0);
  plan.row_error = plan.column_error = 0;
  for (int64_t i = 0; i < problem.rows; ++i) {
    double sent = 0;
    for (int64_t j = 0; j < problem.columns; ++j) {
      const double mass = plan.mass[i * problem.columns + j];
      sent += mass;
      received[j] += mass;
    }
    plan.row_error = std::max(plan.row_error, std::abs(sent - problem.supply[i]));
  }
  for (int64_t j = 0; j < problem.columns; ++j) {
    plan.column_error = std::max(plan.column_error, std::abs(received[j] - problem.demand[j]));
  }
}

Problem transposed(const Problem& problem) {
  Problem result{.rows = problem.columns,
                 .columns = problem.rows,
                 .cost = std::vector<double>(problem.cost.size()),
                 .supply = problem.demand,
                 .demand = problem.supply};
  for (int64_t i = 0; i < problem.rows; ++i) {
    for (int64_t j = 0; j < problem.columns; ++j) {
      result.cost[j * problem.rows + i] = problem.cost[i * problem.columns + j];
    }
  }
  return result;
}

}  // namespace cadre::transport
