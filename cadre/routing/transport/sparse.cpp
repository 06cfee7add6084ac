#include "cadre/routing/transport/sparse.h"

#include <algorithm>
#include <cmath>

#include "cadre/base/error.h"

namespace cadre::transport {
namespace {

constexpr double kAdamConverged = 1e-6;

void check_options(const Sparse& options, int64_t variables) {
  if (!(options.gamma > 0) || !std::isfinite(options.gamma)) {
    throw UsageError("transport: gamma is {}, must be above 0", options.gamma);
  }
  const auto size = static_cast<int64_t>(options.start.size());
  if (size != 0 && size != variables) {
    throw UsageError("transport: the start has {} potentials, must have {}", size, variables);
  }
}

Maximum maximum_of(ColumnDual& dual, const Sparse& options, double mass_scale) {
  const Concave function = [&dual](const std::vector<double>& x, std::vector<double>& gradient) {
    return dual.evaluate(x, gradient);
  };
  std::vector<double> start = options.start;
  start.resize(dual.size(), 0.0);
  if (const auto* adam = std::get_if<Adam>(&options.method)) {
    return maximize(function, std::move(start), *adam);
  }
  Lbfgs lbfgs = std::get<Lbfgs>(options.method);
  lbfgs.tolerance *= mass_scale;
  return maximize(function, std::move(start), lbfgs);
}

double tolerance_of(const Sparse& options) {
  const auto* lbfgs = std::get_if<Lbfgs>(&options.method);
  return lbfgs ? lbfgs->tolerance : kAdamConverged;
}

}  // namespace

Plan solve_sparse(const Problem& problem, const Sparse& options) {
  check(problem);
  check_cardinality(problem, options.k.value_or(problem.rows));
  ColumnDual dual(problem, options.form, options.gamma, options.k.value_or(problem.rows));
  check_options(options, dual.size());
  const double mass_scale = *std::max_element(problem.supply.begin(), problem.supply.end());

  Maximum maximum = maximum_of(dual, options, mass_scale);
  std::vector<double> gradient(dual.size());
  Plan plan{.bound = dual.evaluate(maximum.x, gradient), .iterations = maximum.iterations};
  plan.mass = dual.mass();
  plan.beta = dual.beta();
  plan.alpha = std::move(maximum.x);
  plan.alpha.resize(problem.rows);
  plan.objective = linear_cost(problem, plan.mass);
  for (const double mass : plan.mass) plan.objective += options.gamma / 2 * mass * mass;
  measure_errors(problem, plan);
  plan.converged =
      std::max(plan.row_error, plan.column_error) <= 2 * tolerance_of(options) * mass_scale;
  return plan;
}

}  // namespace cadre::transport
