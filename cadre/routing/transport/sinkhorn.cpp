#include "cadre/routing/transport/sinkhorn.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

#include "cadre/base/error.h"

namespace cadre::transport {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;

/// Products on the scaled kernel between two passes in the log domain: those cost an exponential an
/// entry, thirty times as much.
constexpr int64_t kScalingsPerPass = 50;
/// Beyond this a scaling is absorbed; its product with a kernel entry stays a normal number.
constexpr double kLargestScaling = 1e100;
/// Below it is nothing: Eigen's exponential of -infinity is no zero.
constexpr double kSmallest = 1e-300;

Eigen::Map<const Vector> view(const std::vector<double>& values) {
  return {values.data(), static_cast<Eigen::Index>(values.size())};
}

class Sinkhorn {
 public:
  Sinkhorn(const Problem& problem, const Entropic& options)
      : options_(options),
        cost_(Eigen::Map<const Matrix>(problem.cost.data(), problem.rows, problem.columns)),
        supply_(view(problem.supply)),
        demand_(view(problem.demand)),
        alpha_(Vector::Zero(problem.rows)),
        beta_(Vector::Zero(problem.columns)) {}

  Plan solve() {
    Plan plan;
    while (!plan.converged && plan.iterations < options_.max_iterations) {
      ++plan.iterations;
      pass_in_log_domain();
      plan.converged = scale(plan.iterations);
    }
    for (Eigen::Index i = 0; i < kernel_.size(); ++i) plan.mass.push_back(kernel_.data()[i]);
    plan.alpha.assign(alpha_.begin(), alpha_.end());
    plan.beta.assign(beta_.begin(), beta_.end());
    return plan;
  }

 private:
  bool within_tolerance(const Vector& row_sums) const {
    const double error = (row_sums - supply_).cwiseAbs().maxCoeff();
    return error <= options_.tolerance * supply_.maxCoeff();
  }

  /// Both potentials by log-sum-exp, whatever their size; then the kernel that belongs to them.
  void pass_in_log_domain() {
    const double epsilon = options_.epsilon;
    for (Eigen::Index i = 0; i < alpha_.size(); ++i) {
      alpha_[i] = epsilon * std::log(supply_[i]) - soft_max(beta_ - cost_.row(i).transpose());
    }
    for (Eigen::Index j = 0; j < beta_.size(); ++j) {
      beta_[j] = epsilon * std::log(demand_[j]) - soft_max(alpha_ - cost_.col(j));
    }
    refresh_kernel();
  }

  /// epsilon log sum exp(x / epsilon).
  double soft_max(const Vector& x) const {
    const double largest = x.maxCoeff();
    if (largest == -std::numeric_limits<double>::infinity()) return 0;
    return largest +
           options_.epsilon * std::log(((x.array() - largest) / options_.epsilon).exp().sum());
  }

  void refresh_kernel() {
    kernel_ = ((-cost_).colwise() + alpha_).rowwise() + beta_.transpose();
    kernel_ = (kernel_.array() / options_.epsilon).exp();
    kernel_ = (kernel_.array() < kSmallest).select(0.0, kernel_);
  }

  /// Plain Sinkhorn on the kernel until it converges or must be absorbed. True when converged.
  bool scale(int64_t& iterations) {
    Vector u = Vector::Ones(alpha_.size()), v = Vector::Ones(beta_.size());
    bool converged = within_tolerance(kernel_.rowwise().sum());
    for (int64_t pass = 0; !converged && pass < kScalingsPerPass; ++pass) {
      if (iterations >= options_.max_iterations) break;
      ++iterations;
      const Vector next_u = ratio(supply_, kernel_ * v);
      const Vector next_v = ratio(demand_, kernel_.transpose() * next_u);
      if (!representable(next_u) || !representable(next_v)) break;
      u = next_u;
      v = next_v;
      converged = within_tolerance(u.cwiseProduct(kernel_ * v));
    }
    absorb(u, v);
    return converged;
  }

  /// Where there is no mass to place, the kernel is zero already.
  static Vector ratio(const Vector& wanted, const Vector& sums) {
    return (wanted.array() > 0).select(wanted.cwiseQuotient(sums), Vector::Ones(wanted.size()));
  }

  static bool representable(const Vector& scaling) {
    return scaling.allFinite() && scaling.maxCoeff() < kLargestScaling &&
           scaling.minCoeff() > 1 / kLargestScaling;
  }

  void absorb(const Vector& u, const Vector& v) {
    alpha_.array() += options_.epsilon * u.array().log();
    beta_.array() += options_.epsilon * v.array().log();
    kernel_ = u.asDiagonal() * kernel_ * v.asDiagonal();
  }

  const Entropic options_;
  const Matrix cost_;
  const Vector supply_, demand_;
  Vector alpha_, beta_;
  Matrix kernel_;
};

/// sum a alpha + sum b beta - epsilon sum T. A marginal of 0 has the potential -infinity.
double dual_value(const Problem& problem, const Plan& plan, double epsilon) {
  double value = 0;
  for (int64_t i = 0; i < problem.rows; ++i) {
    if (problem.supply[i] > 0) value += problem.supply[i] * plan.alpha[i];
  }
  for (int64_t j = 0; j < problem.columns; ++j) {
    if (problem.demand[j] > 0) value += problem.demand[j] * plan.beta[j];
  }
  for (const double mass : plan.mass) value -= epsilon * mass;
  return value;
}

}  // namespace

Plan solve_entropic(const Problem& problem, const Entropic& options) {
  check(problem);
  if (!(options.epsilon > 0) || !std::isfinite(options.epsilon)) {
    throw UsageError("transport: epsilon is {}, must be above 0", options.epsilon);
  }
  if (options.max_iterations < 1) {
    throw UsageError("transport: {} iterations, there must be at least 1", options.max_iterations);
  }
  Plan plan = Sinkhorn(problem, options).solve();
  plan.objective = linear_cost(problem, plan.mass);
  for (const double mass : plan.mass) {
    if (mass > 0) plan.objective += options.epsilon * mass * (std::log(mass) - 1);
  }
  plan.bound = dual_value(problem, plan, options.epsilon);
  measure_errors(problem, plan);
  return plan;
}

}  // namespace cadre::transport
