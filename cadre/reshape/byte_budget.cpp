#include "cadre/reshape/byte_budget.h"

#include <algorithm>
#include <numeric>

#include "cadre/base/error.h"

namespace cadre::reshape {
namespace {

using Options = std::vector<StorageOption>;
constexpr int64_t kFillings = 1024;

/// Error saved a byte from one option to a larger one.
double slope(const StorageOption& from, const StorageOption& to) {
  return (from.error - to.error) / static_cast<double>(to.bytes - from.bytes);
}

/// Indices of the options worth taking, by rising bytes: each saves less a byte than the one
/// before.
std::vector<size_t> hull_of(const Options& options) {
  std::vector<size_t> order(options.size()), hull;
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return std::pair(options[a].bytes, options[a].error) <
           std::pair(options[b].bytes, options[b].error);
  });
  for (const size_t next : order) {
    if (!hull.empty() && options[next].error >= options[hull.back()].error) continue;
    while (hull.size() > 1 && slope(options[hull[hull.size() - 2]], options[hull.back()]) <=
                                  slope(options[hull.back()], options[next]))
      hull.pop_back();
    hull.push_back(next);
  }
  return hull;
}

struct Step {
  size_t item, level;  ///< to the hull's option of this number
  int64_t bytes;
  double saved, slope;
};

class Filler {
 public:
  explicit Filler(std::span<const Options> items) {
    for (const Options& options : items) {
      if (options.empty()) throw UsageError("an item has no way to be stored");
      hulls_.push_back(hull_of(options));
    }
    for (size_t i = 0; i < items.size(); ++i) add_steps(items[i], i);
    std::stable_sort(steps_.begin(), steps_.end(),
                     [](const Step& a, const Step& b) { return a.slope > b.slope; });
  }

  int64_t most() const {
    return std::accumulate(steps_.begin(), steps_.end(), least_,
                           [](int64_t sum, const Step& step) { return sum + step.bytes; });
  }
  int64_t least() const { return least_; }

  /// The levels that `budget` fills, and the error they save.
  double fill(int64_t budget, std::vector<size_t>& levels) const {
    levels.assign(hulls_.size(), 0);
    int64_t bytes = least_;
    double saved = 0;
    for (const Step& step : steps_) {
      if (levels[step.item] + 1 != step.level || bytes + step.bytes > budget) continue;
      levels[step.item] = step.level;
      bytes += step.bytes;
      saved += step.saved;
    }
    return saved;
  }

  std::vector<size_t> options_of(const std::vector<size_t>& levels) const {
    std::vector<size_t> chosen;
    for (size_t i = 0; i < levels.size(); ++i) chosen.push_back(hulls_[i][levels[i]]);
    return chosen;
  }

 private:
  void add_steps(const Options& options, size_t item) {
    const std::vector<size_t>& hull = hulls_[item];
    least_ += options[hull.front()].bytes;
    for (size_t level = 1; level < hull.size(); ++level) {
      const StorageOption &from = options[hull[level - 1]], &to = options[hull[level]];
      steps_.push_back(
          {item, level, to.bytes - from.bytes, from.error - to.error, slope(from, to)});
    }
  }

  std::vector<std::vector<size_t>> hulls_;
  std::vector<Step> steps_;
  int64_t least_ = 0;
};

}  // namespace

int64_t least_bytes(std::span<const Options> items) { return Filler(items).least(); }

std::vector<size_t> choose_within(std::span<const Options> items, int64_t budget) {
  const Filler filler(items);
  if (budget < filler.least())
    throw UsageError("{} bytes are too few: {} are the least", budget, filler.least());
  const int64_t unit = std::max<int64_t>(1, (filler.most() - filler.least()) / kFillings);
  std::vector<size_t> best, levels;
  double most_saved = -1;
  const int64_t top = std::min(budget, filler.most() + unit);
  for (int64_t total = filler.least(); total <= top; total += unit) {
    const double saved = filler.fill(total, levels);
    if (saved <= most_saved) continue;
    most_saved = saved;
    best = levels;
  }
  return filler.options_of(best);
}

}  // namespace cadre::reshape
