#include "cadre/routing/transport/exact.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace cadre::transport {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// What a row may keep, of the total mass: marginals agree up to rounding only.
constexpr double kLeftOver = 1e-12;
constexpr int64_t kNone = -1;

class Augmenter {
 public:
  explicit Augmenter(const Problem& problem)
      : problem_(problem),
        columns_(problem.columns),
        mass_(problem.cost.size(), 0.0),
        alpha_(problem.rows, 0.0),
        beta_(problem.columns, 0.0),
        room_(problem.demand),
        senders_(problem.columns),
        distance_(problem.columns),
        reached_by_(problem.columns),
        settled_(problem.columns),
        entered_from_(problem.rows) {}

  Plan solve() {
    const double total =
        std::accumulate(problem_.supply.begin(), problem_.supply.end(), 0.0) * kLeftOver;
    Plan plan;
    for (int64_t row = 0; row < problem_.rows; ++row) {
      double left = problem_.supply[row];
      alpha_[row] = cheapest(row);
      while (left > total) {
        const int64_t target = shortest_path(row);
        if (target == kNone) break;
        left -= augment(row, target, left);
        ++plan.iterations;
      }
    }
    plan.mass = std::move(mass_);
    plan.alpha = std::move(alpha_);
    plan.beta = std::move(beta_);
    return plan;
  }

 private:
  double reduced_cost(int64_t row, int64_t column) const {
    return problem_.cost[row * columns_ + column] - alpha_[row] - beta_[column];
  }

  double cheapest(int64_t row) const {
    double least = kInfinity;
    for (int64_t j = 0; j < columns_; ++j) {
      least = std::min(least, problem_.cost[row * columns_ + j] - beta_[j]);
    }
    return least;
  }

  /// Dijkstra over the columns, from `source` to the nearest with room; kNone when all are full.
  /// Then moves the potentials, so that the path's edges cost nothing and no edge is negative.
  int64_t shortest_path(int64_t source) {
    std::fill(distance_.begin(), distance_.end(), kInfinity);
    std::fill(settled_.begin(), settled_.end(), false);
    std::fill(entered_from_.begin(), entered_from_.end(), kNone);
    entered_.clear();
    relax(source, 0);
    for (;;) {
      const int64_t column = nearest();
      if (column == kNone) return kNone;
      if (room_[column] > 0) {
        move_potentials(source, distance_[column]);
        return column;
      }
      settled_[column] = true;
      for (const int64_t row : senders_[column]) {
        if (row == source || entered_from_[row] != kNone) continue;
        entered_from_[row] = column;
        entered_.push_back(row);
        relax(row, distance_[column]);
      }
    }
  }

  void relax(int64_t row, double start) {
    for (int64_t j = 0; j < columns_; ++j) {
      const double distance = start + std::max(reduced_cost(row, j), 0.0);
      if (settled_[j] || distance >= distance_[j]) continue;
      distance_[j] = distance;
      reached_by_[j] = row;
    }
  }

  int64_t nearest() const {
    int64_t best = kNone;
    for (int64_t j = 0; j < columns_; ++j) {
      if (settled_[j] || problem_.demand[j] == 0) continue;
      if (best == kNone || distance_[j] < distance_[best]) best = j;
    }
    return best;
  }

  void move_potentials(int64_t source, double length) {
    alpha_[source] += length;
    for (const int64_t row : entered_) alpha_[row] += length - distance_[entered_from_[row]];
    for (int64_t j = 0; j < columns_; ++j) {
      if (settled_[j]) beta_[j] -= length - distance_[j];
    }
  }

  /// Sends as much as the path carries, at most `wanted`.
  double augment(int64_t source, int64_t target, double wanted) {
    double amount = std::min(wanted, room_[target]);
    for (int64_t row = reached_by_[target]; row != source; row = reached_by_[entered_from_[row]]) {
      amount = std::min(amount, mass_[row * columns_ + entered_from_[row]]);
    }
    room_[target] -= amount;
    int64_t column = target;
    for (;;) {
      const int64_t row = reached_by_[column];
      add(row, column, amount);
      if (row == source) return amount;
      column = entered_from_[row];
      add(row, column, -amount);
    }
  }

  void add(int64_t row, int64_t column, double amount) {
    double& mass = mass_[row * columns_ + column];
    auto& senders = senders_[column];
    if (mass == 0) senders.push_back(row);
    mass += amount;
    if (mass == 0) senders.erase(std::find(senders.begin(), senders.end(), row));
  }

  const Problem& problem_;
  const int64_t columns_;
  std::vector<double> mass_, alpha_, beta_, room_;
  std::vector<std::vector<int64_t>> senders_;  ///< rows with mass in a column
  std::vector<double> distance_;
  std::vector<int64_t> reached_by_;  ///< the row before a column on its shortest path
  std::vector<bool> settled_;
  std::vector<int64_t> entered_from_;  ///< the column before a row
  std::vector<int64_t> entered_;
};

/// [columns, columns]: by how much beta_to may exceed beta_from before a row of the plan would
/// rather move; then all detours considered (Floyd and Warshall).
std::vector<double> gaps_between_columns(const Problem& problem, const Plan& plan) {
  const int64_t n = problem.columns;
  std::vector<double> gap(n * n, kInfinity);
  for (int64_t i = 0; i < problem.rows; ++i) {
    const double* cost = problem.cost.data() + i * n;
    for (int64_t from = 0; from < n; ++from) {
      if (plan.mass[i * n + from] == 0) continue;
      for (int64_t to = 0; to < n; ++to) {
        gap[from * n + to] = std::min(gap[from * n + to], cost[to] - cost[from]);
      }
    }
  }
  for (int64_t via = 0; via < n; ++via) {
    for (int64_t from = 0; from < n; ++from) {
      const double first = gap[from * n + via];
      for (int64_t to = 0; to < n; ++to) {
        if (to == from) continue;
        gap[from * n + to] = std::min(gap[from * n + to], first + gap[via * n + to]);
      }
    }
  }
  return gap;
}

}  // namespace

/// The distances from one column are potentials that prove the plan; those from all columns leave
/// each pair its slack in at least one of them, so their mean leaves it everywhere.
void centre_potentials(const Problem& problem, Plan& plan) {
  const int64_t n = problem.columns;
  const auto gap = gaps_between_columns(problem, plan);
  const auto used = std::count_if(problem.demand.begin(), problem.demand.end(),
                                  [](double demand) { return demand > 0; });
  std::fill(plan.beta.begin(), plan.beta.end(), 0.0);
  for (int64_t from = 0; from < n; ++from) {
    if (problem.demand[from] == 0) continue;
    for (int64_t to = 0; to < n; ++to) {
      plan.beta[to] += gap[from * n + to] / static_cast<double>(used);
    }
  }
  for (int64_t i = 0; i < problem.rows; ++i) {
    double least = kInfinity;
    for (int64_t j = 0; j < n; ++j) {
      least = std::min(least, problem.cost[i * n + j] - plan.beta[j]);
    }
    plan.alpha[i] = least;
  }
}

Plan solve_exact(const Problem& problem) {
  check(problem);
  Plan plan = Augmenter(problem).solve();
  plan.objective = linear_cost(problem, plan.mass);
  plan.bound =
      std::inner_product(plan.alpha.begin(), plan.alpha.end(), problem.supply.begin(), 0.0) +
      std::inner_product(plan.beta.begin(), plan.beta.end(), problem.demand.begin(), 0.0);
  measure_errors(problem, plan);
  plan.converged = true;
  return plan;
}

}  // namespace cadre::transport
