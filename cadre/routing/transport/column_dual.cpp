#include "cadre/routing/transport/column_dual.h"

#include <algorithm>
#include <numeric>

#include "cadre/base/parallel.h"
#include "cadre/routing/transport/simplex.h"

namespace cadre::transport {
namespace {

/// Entries of one thread's share: below it a second thread costs more than it does.
constexpr int64_t kGrain = 8192;

}  // namespace

struct ColumnDual::Scratch {
  std::vector<double> slack;  ///< alpha (+ beta_j) - c_j
  std::vector<double> copy;
};

ColumnDual::ColumnDual(const Problem& problem, DualForm form, double gamma, int64_t k)
    : problem_(problem),
      form_(form),
      gamma_(gamma),
      k_(std::min(k, problem.rows)),
      cost_by_column_(transposed(problem).cost),
      columns_(problem.columns) {}

int64_t ColumnDual::size() const {
  return problem_.rows + (form_ == DualForm::kDual ? problem_.columns : 0);
}

double ColumnDual::evaluate(const std::vector<double>& x, std::vector<double>& gradient) {
  const int64_t rows = problem_.rows, columns = problem_.columns;
  parallel_for(columns, std::max<int64_t>(kGrain / rows, 1), [&](int64_t begin, int64_t end) {
    Scratch scratch;
    scratch.slack.resize(rows);
    for (int64_t j = begin; j < end; ++j) solve_column(j, x.data(), scratch);
  });
  double value = std::inner_product(problem_.supply.begin(), problem_.supply.end(), x.begin(), 0.0);
  std::copy(problem_.supply.begin(), problem_.supply.end(), gradient.begin());
  for (int64_t j = 0; j < columns; ++j) {
    const Column& column = columns_[j];
    value -= column.value;
    for (size_t p = 0; p < column.rows.size(); ++p) gradient[column.rows[p]] -= column.mass[p];
    if (form_ == DualForm::kSemiDual) continue;
    value += problem_.demand[j] * x[rows + j];
    gradient[rows + j] =
        std::accumulate(column.mass.begin(), column.mass.end(), problem_.demand[j], std::minus<>());
  }
  return value;
}

void ColumnDual::solve_column(int64_t j, const double* x, Scratch& scratch) {
  const int64_t rows = problem_.rows;
  const double* cost = cost_by_column_.data() + j * rows;
  Column& column = columns_[j];
  column.beta = form_ == DualForm::kDual ? x[rows + j] : 0;
  for (int64_t i = 0; i < rows; ++i) scratch.slack[i] = x[i] + column.beta - cost[i];
  keep_largest(scratch.slack.data(), rows, k_, column.rows, scratch.copy);
  column.mass.resize(column.rows.size());
  if (form_ == DualForm::kDual) {
    solve_dual(column, scratch);
  } else {
    solve_semi_dual(j, column, scratch);
  }
}

void ColumnDual::solve_semi_dual(int64_t j, Column& column, Scratch& scratch) const {
  const double demand = problem_.demand[j];
  column.value = 0;
  if (demand == 0) {
    std::fill(column.mass.begin(), column.mass.end(), 0.0);
    return;
  }
  for (size_t p = 0; p < column.rows.size(); ++p) {
    column.mass[p] = scratch.slack[column.rows[p]] / (gamma_ * demand);
  }
  column.beta = -project_on_simplex(column.mass) * gamma_ * demand;
  for (size_t p = 0; p < column.rows.size(); ++p) {
    double& mass = column.mass[p];
    mass *= demand;
    column.value += mass * (scratch.slack[column.rows[p]] - gamma_ / 2 * mass);
  }
}

void ColumnDual::solve_dual(Column& column, const Scratch& scratch) const {
  column.value = 0;
  for (size_t p = 0; p < column.rows.size(); ++p) {
    column.mass[p] = std::max(scratch.slack[column.rows[p]], 0.0) / gamma_;
    column.value += gamma_ / 2 * column.mass[p] * column.mass[p];
  }
}

std::vector<double> ColumnDual::mass() const {
  std::vector<double> mass(problem_.rows * problem_.columns, 0.0);
  for (int64_t j = 0; j < problem_.columns; ++j) {
    const Column& column = columns_[j];
    for (size_t p = 0; p < column.rows.size(); ++p) {
      mass[column.rows[p] * problem_.columns + j] = column.mass[p];
    }
  }
  return mass;
}

std::vector<double> ColumnDual::beta() const {
  std::vector<double> beta;
  for (const Column& column : columns_) beta.push_back(column.beta);
  return beta;
}

}  // namespace cadre::transport
