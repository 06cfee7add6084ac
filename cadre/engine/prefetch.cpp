#include "cadre/engine/prefetch.h"

#include <algorithm>

namespace cadre::engine {
namespace {

/// Before anything is known guesses are taken for even chances.
constexpr double kFirstShare = 0.5;
constexpr double kLearning = 0.02;

}  // namespace

void PrefetchGauge::measure_layer(double gap, double total) {
  if (total <= 0) return;
  const double utilisation = std::clamp(1 - gap / total, 0.0, 1.0);
  if (!measured_) {
    gap_ = gap;
    utilisation_ = utilisation;
    measured_ = true;
    return;
  }
  smooth(gap_, gap);
  smooth(utilisation_, utilisation);
}

void PrefetchGauge::measure_reading(double bytes, double seconds) {
  if (bytes > 0 && seconds > 0) smooth(bandwidth_, bytes / seconds);
}

int64_t PrefetchGauge::width(int64_t expert_bytes) const {
  return static_cast<int64_t>(gap_ * bandwidth_ /
                              static_cast<double>(std::max<int64_t>(1, expert_bytes)));
}

RankCalibration::RankCalibration(int64_t ranks) : share_(ranks, kFirstShare) {}

double RankCalibration::probability(int64_t rank) const {
  return rank < static_cast<int64_t>(share_.size()) ? share_[rank] : 0.0;
}

void RankCalibration::learn(int64_t rank, double came_true) {
  if (rank < static_cast<int64_t>(share_.size()))
    share_[rank] += kLearning * (came_true - share_[rank]);
}

}  // namespace cadre::engine
