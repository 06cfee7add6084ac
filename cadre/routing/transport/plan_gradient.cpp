#include "cadre/routing/transport/plan_gradient.h"

#include <Eigen/Dense>

namespace cadre::transport {
namespace {

using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;

Eigen::Map<const Matrix> matrix(const Problem& problem, const std::vector<double>& values) {
  return {values.data(), problem.rows, problem.columns};
}

/// The symmetric semi-definite system's solution of least norm: constants (one a connected part of
/// the plan) are in its null space and change nothing.
Vector solve_singular(const Eigen::MatrixXd& system, const Vector& right) {
  return system.completeOrthogonalDecomposition().solve(right);
}

/// 1 / x, and 0 for rows and columns without mass.
Vector inverse_or_zero(const Vector& x) {
  return (x.array() > 0).select(x.cwiseInverse(), Vector::Zero(x.size()));
}

ProblemGradient packed(const Matrix& cost, const Vector& supply, const Vector& demand) {
  return {.cost = {cost.data(), cost.data() + cost.size()},
          .supply = {supply.begin(), supply.end()},
          .demand = {demand.begin(), demand.end()}};
}

}  // namespace

// T = exp((alpha + beta - C) / epsilon), so with H = G * T the adjoint (u, v) of the potentials
// solves
//   u_i a_i + (T v)_i = (H 1)_i,   (T' u)_j + v_j b_j = (H' 1)_j
// and d/dC = (T (u + v) - H) / epsilon. u is eliminated.
ProblemGradient entropic_gradient(const Problem& problem, const Plan& plan, double epsilon,
                                  const std::vector<double>& mass_gradient) {
  const Matrix mass = matrix(problem, plan.mass);
  const Matrix pull = mass.cwiseProduct(matrix(problem, mass_gradient));
  const Vector row_inverse = inverse_or_zero(mass.rowwise().sum());
  const Vector column_sums = mass.colwise().sum();
  const Vector row_pull = row_inverse.cwiseProduct(pull.rowwise().sum());
  Eigen::MatrixXd system = -(mass.transpose() * row_inverse.asDiagonal() * mass);
  system.diagonal() += column_sums;
  const Vector v =
      solve_singular(system, pull.colwise().sum().transpose() - mass.transpose() * row_pull);
  const Vector u = row_pull - row_inverse.cwiseProduct(mass * v);
  const Matrix answer =
      mass.cwiseProduct((u.replicate(1, mass.cols()).rowwise() + v.transpose()).matrix());
  return packed((answer - pull) / epsilon, u, v);
}

// On its support s_j a column is t_j = P_j (alpha - c_j) / gamma + b_j s_j / |s_j|, with the
// projection P_j = diag(s_j) - s_j s_j' / |s_j|. With g_j the column of the mass's gradient, the
// adjoint w of alpha solves sum_j P_j w = sum_j P_j g_j; d/dc_j = P_j (w - g_j) / gamma. The system
// is a diagonal less a matrix of rank `columns`.
ProblemGradient sparse_gradient(const Problem& problem, const Plan& plan, double gamma,
                                const std::vector<double>& mass_gradient) {
  const Matrix support = (matrix(problem, plan.mass).array() > 0).cast<double>();
  const Matrix gradient = support.cwiseProduct(matrix(problem, mass_gradient));
  const Vector column_inverse = inverse_or_zero(support.colwise().sum());
  const auto centred = [&](const Matrix& columns) -> Matrix {
    const Vector means = column_inverse.cwiseProduct(columns.colwise().sum().transpose());
    return columns - support * means.asDiagonal();
  };
  const Vector row_inverse = inverse_or_zero(support.rowwise().sum());
  const Vector right = row_inverse.cwiseProduct(centred(gradient).rowwise().sum());
  const Vector root = column_inverse.cwiseSqrt();
  const Matrix scaled = support * root.asDiagonal();
  const Eigen::MatrixXd system = Eigen::MatrixXd::Identity(problem.columns, problem.columns) -
                                 scaled.transpose() * row_inverse.asDiagonal() * scaled;
  const Vector z = solve_singular(system, scaled.transpose() * right);
  const Vector w = right + row_inverse.cwiseProduct(scaled * z);
  const Matrix pull = support.cwiseProduct(w.replicate(1, problem.columns)) - gradient;
  const Vector demand = -column_inverse.cwiseProduct(pull.colwise().sum().transpose());
  return packed(centred(pull) / gamma, w, demand);
}

}  // namespace cadre::transport
