#include "cadre/reshape/assignment.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <queue>
#include <utility>

#include "cadre/base/error.h"

namespace cadre::reshape {
namespace {

constexpr int32_t kFree = -1;
constexpr double kInfinite = std::numeric_limits<double>::infinity();

/// Costs are negated scores. Column j's price is v[j]; a row takes the column with the smallest
/// c[i, j] - v[j].
class Exact {
 public:
  Exact(int64_t n, const float* scores)
      : n_(n),
        scores_(scores),
        row_of_(static_cast<size_t>(n), kFree),
        column_of_(static_cast<size_t>(n), kFree),
        v_(static_cast<size_t>(n)),
        distance_(static_cast<size_t>(n)),
        before_(static_cast<size_t>(n)),
        order_(static_cast<size_t>(n)) {}

  Assignment solve() {
    reduce_columns();
    // Two rounds of cheap exchanges leave few rows for the shortest paths.
    reduce_rows();
    reduce_rows();
    for (int32_t row = 0; row < n_; ++row) {
      if (column_of(row) == kFree) augment(row);
    }
    return result();
  }

 private:
  double cost(int32_t row, int32_t column) const { return -double{scores_[row * n_ + column]}; }
  int32_t& row_of(int32_t column) { return row_of_[static_cast<size_t>(column)]; }
  int32_t& column_of(int32_t row) { return column_of_[static_cast<size_t>(row)]; }
  double& v(int32_t column) { return v_[static_cast<size_t>(column)]; }

  /// Every column offers itself to its cheapest row; a row keeps the first offer.
  void reduce_columns() {
    std::vector<int32_t> cheapest(static_cast<size_t>(n_));
    std::fill(v_.begin(), v_.end(), kInfinite);
    for (int32_t row = 0; row < n_; ++row) {
      for (int32_t column = 0; column < n_; ++column) {
        const double c = cost(row, column);
        if (c >= v(column)) continue;
        v(column) = c;
        cheapest[static_cast<size_t>(column)] = row;
      }
    }
    for (int32_t column = 0; column < n_; ++column) {
      const int32_t row = cheapest[static_cast<size_t>(column)];
      if (column_of(row) != kFree) continue;
      column_of(row) = column;
      row_of(column) = row;
    }
  }

  /// A free row takes its best column, whose price falls to where its second best is as good; who
  /// had the column is free again and comes next, or later when nothing was won by it.
  void reduce_rows() {
    std::vector<int32_t> waiting;
    for (int32_t row = n_ - 1; row >= 0; --row) {
      if (column_of(row) == kFree) waiting.push_back(row);
    }
    int64_t budget = 4 * n_;  // equal prices could exchange for long: the paths settle them
    while (!waiting.empty() && budget-- > 0) {
      const int32_t row = waiting.back();
      waiting.pop_back();
      auto [first, second, gap] = two_best(row);
      if (gap > 0) {
        v(first) -= gap;
      } else if (row_of(first) != kFree) {
        first = second;
      }
      const int32_t displaced = row_of(first);
      if (displaced != kFree && gap <= 0) continue;
      row_of(first) = row;
      column_of(row) = first;
      if (displaced == kFree) continue;
      column_of(displaced) = kFree;
      waiting.push_back(displaced);
    }
  }

  struct TwoBest {
    int32_t first, second;
    double gap;  ///< by how much the second is worse
  };
  TwoBest two_best(int32_t row) {
    int32_t first = 0, second = 0;
    double best = kInfinite, next = kInfinite;
    for (int32_t column = 0; column < n_; ++column) {
      const double reduced = cost(row, column) - v(column);
      if (reduced >= next) continue;
      if (reduced >= best) {
        next = reduced;
        second = column;
        continue;
      }
      next = std::exchange(best, reduced);
      second = std::exchange(first, column);
    }
    return {first, second, n_ == 1 ? 0 : next - best};
  }

  /// Dijkstra over columns from a free row to the nearest free column; order_ holds [done | at the
  /// least distance | others].
  void augment(int32_t free_row) {
    std::iota(order_.begin(), order_.end(), 0);
    for (int32_t column = 0; column < n_; ++column) {
      distance_[static_cast<size_t>(column)] = cost(free_row, column) - v(column);
    }
    std::fill(before_.begin(), before_.end(), free_row);
    size_t done = 0, reached = 0;
    int32_t end = kFree;
    double least = 0;
    size_t settled = 0;
    while (end == kFree) {
      if (done == reached) {
        settled = done;
        least = gather_nearest(reached);
        end = free_among(done, reached);
        if (end != kFree) break;
      }
      end = relax(order_[done++], least, reached);
    }
    for (size_t i = 0; i < settled; ++i) {
      const int32_t column = order_[i];
      v(column) += distance_[static_cast<size_t>(column)] - least;
    }
    for (int32_t row = kFree; row != free_row;) {
      row = before_[static_cast<size_t>(end)];
      row_of(end) = row;
      std::swap(end, column_of(row));
    }
  }

  /// Moves the columns at the least distance to order_[.., reached).
  double gather_nearest(size_t& reached) {
    double least = kInfinite;
    size_t from = reached;
    for (size_t i = from; i < order_.size(); ++i) {
      const double d = distance_[static_cast<size_t>(order_[i])];
      if (d > least) continue;
      if (d < least) {
        least = d;
        reached = from;
      }
      std::swap(order_[i], order_[reached++]);
    }
    return least;
  }

  int32_t free_among(size_t from, size_t to) {
    for (size_t i = from; i < to; ++i) {
      if (row_of(order_[i]) == kFree) return order_[i];
    }
    return kFree;
  }

  /// Distances through `column`'s row; a free column at the least distance, if it led to one.
  int32_t relax(int32_t column, double least, size_t& reached) {
    const int32_t row = row_of(column);
    const double base = cost(row, column) - v(column) - least;
    for (size_t i = reached; i < order_.size(); ++i) {
      const int32_t other = order_[i];
      const double d = cost(row, other) - v(other) - base;
      if (d >= distance_[static_cast<size_t>(other)]) continue;
      distance_[static_cast<size_t>(other)] = d;
      before_[static_cast<size_t>(other)] = row;
      if (d > least) continue;
      if (row_of(other) == kFree) return other;
      std::swap(order_[i], order_[reached++]);
    }
    return kFree;
  }

  Assignment result() {
    Assignment result = {.columns = column_of_};
    for (int32_t row = 0; row < n_; ++row) result.score -= cost(row, column_of(row));
    result.bound = result.score;
    return result;
  }

  int64_t n_;
  const float* scores_;
  std::vector<int32_t> row_of_, column_of_;
  std::vector<double> v_, distance_;
  std::vector<int32_t> before_;  ///< the row from which a column was reached
  std::vector<int32_t> order_;   ///< columns
};

/// Shortest paths over lists. Rows' potentials are kept too: a list has no column to read them off.
class Sparse {
 public:
  Sparse(int64_t n, int64_t k, std::span<const Candidate> candidates)
      : k_(k),
        candidates_(candidates),
        row_of_(static_cast<size_t>(n), kFree),
        column_of_(static_cast<size_t>(n), kFree),
        u_(static_cast<size_t>(n)),
        v_(static_cast<size_t>(n)),
        distance_(static_cast<size_t>(n)),
        before_(static_cast<size_t>(n)),
        seen_(static_cast<size_t>(n), -1) {
    for (size_t row = 0; row < u_.size(); ++row) {
      double best = -kInfinite;
      for (const Candidate& c : list(static_cast<int32_t>(row)))
        best = std::max<double>(best, c.score);
      u_[row] = -best;
    }
  }

  /// Rows and columns that were left over, among themselves.
  std::vector<int32_t> complete(const std::function<float(int64_t, int64_t)>& score) {
    std::vector<int32_t> rows, columns;
    for (size_t i = 0; i < row_of_.size(); ++i) {
      if (column_of_[i] == kFree) rows.push_back(static_cast<int32_t>(i));
      if (row_of_[i] == kFree) columns.push_back(static_cast<int32_t>(i));
    }
    std::vector<float> scores;
    for (const int32_t row : rows) {
      for (const int32_t column : columns) scores.push_back(score(row, column));
    }
    const Assignment rest = assign_exact(static_cast<int64_t>(rows.size()), scores.data());
    for (size_t i = 0; i < rows.size(); ++i) {
      column_of_[static_cast<size_t>(rows[i])] = columns[static_cast<size_t>(rest.columns[i])];
    }
    return column_of_;
  }

  /// Whether the row could be served.
  bool augment(int32_t free_row) {
    queue_ = {};
    settled_.clear();
    relax(free_row, 0, free_row);
    while (!queue_.empty()) {
      const auto [d, column] = queue_.top();
      queue_.pop();
      const auto at = static_cast<size_t>(column);
      if (d > distance_[at]) continue;
      if (row_of_[at] == kFree) {
        finish(free_row, column, d);
        return true;
      }
      settled_.push_back(column);
      relax(row_of_[at], d, free_row);
    }
    return false;
  }

 private:
  using Entry = std::pair<double, int32_t>;

  std::span<const Candidate> list(int32_t row) const {
    return candidates_.subspan(static_cast<size_t>(row * k_), static_cast<size_t>(k_));
  }

  void relax(int32_t row, double base, int32_t round) {
    for (const Candidate& c : list(row)) {
      const auto at = static_cast<size_t>(c.column);
      const double d =
          base + std::max(0.0, -double{c.score} - u_[static_cast<size_t>(row)] - v_[at]);
      if (seen_[at] == round && d >= distance_[at]) continue;
      seen_[at] = round;
      distance_[at] = d;
      before_[at] = row;
      queue_.push({d, c.column});
    }
  }

  void finish(int32_t free_row, int32_t end, double length) {
    u_[static_cast<size_t>(free_row)] += length;
    for (const int32_t column : settled_) {
      const auto at = static_cast<size_t>(column);
      v_[at] += distance_[at] - length;
      u_[static_cast<size_t>(row_of_[at])] += length - distance_[at];
    }
    for (int32_t row = kFree; row != free_row;) {
      row = before_[static_cast<size_t>(end)];
      row_of_[static_cast<size_t>(end)] = row;
      std::swap(end, column_of_[static_cast<size_t>(row)]);
    }
  }

  int64_t k_;
  std::span<const Candidate> candidates_;
  std::vector<int32_t> row_of_, column_of_;
  std::vector<double> u_, v_, distance_;
  std::vector<int32_t> before_, seen_;
  std::vector<int32_t> settled_;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue_;
};

}  // namespace

Assignment assign_exact(int64_t n, const float* scores) {
  if (n == 0) return {};
  if (!std::all_of(scores, scores + n * n, [](float s) { return std::isfinite(s); })) {
    throw UsageError("assignment: the scores must be finite");
  }
  return Exact(n, scores).solve();
}

Assignment assign_candidates(int64_t n, int64_t k, std::span<const Candidate> candidates,
                             const std::function<float(int64_t, int64_t)>& score) {
  if (!std::all_of(candidates.begin(), candidates.end(),
                   [](const Candidate& c) { return std::isfinite(c.score); })) {
    throw UsageError("assignment: the scores must be finite");
  }
  Sparse sparse(n, k, candidates);
  for (int32_t row = 0; row < n; ++row) sparse.augment(row);
  Assignment result = {.columns = sparse.complete(score)};
  for (int64_t row = 0; row < n; ++row) {
    const auto list = candidates.subspan(static_cast<size_t>(row * k), static_cast<size_t>(k));
    const int32_t column = result.columns[static_cast<size_t>(row)];
    float best = -std::numeric_limits<float>::infinity();
    const Candidate* chosen = nullptr;
    for (const Candidate& c : list) {
      best = std::max(best, c.score);
      if (c.column == column) chosen = &c;
    }
    result.score += chosen != nullptr ? chosen->score : score(row, column);
    result.bound += best;
  }
  return result;
}

}  // namespace cadre::reshape
