#pragma once

/// How many guesses are worth reading. Guesses fail by what they cost, not by their accuracy: on a
/// saturated disk they delay what is needed. So they are read in the gap between a layer's last
/// demanded expert and the next layer's first, as many as fit it at the measured bandwidth, and
/// only when they are likely enough: the busier the disk, the likelier they must be.

#include <cstdint>
#include <span>
#include <vector>

namespace cadre::engine {

class PrefetchGauge {
 public:
  struct Options {
    double break_even = 0.6;  ///< probability wanted when the disk never rests; 0 when it is idle
    double smoothing = 0.1;   ///< weight of the newest measurement
    double bandwidth = 1e9;   ///< bytes a second before the first measurement
  };

  explicit PrefetchGauge(const Options& options)
      : options_(options), bandwidth_(options.bandwidth) {}

  /// One layer has gone by: `gap` seconds in which no demanded expert was awaited, of `total`.
  void measure_layer(double gap, double total);
  /// So many bytes came while the disk was busy for so long.
  void measure_reading(double bytes, double seconds);

  /// floor(gap * bandwidth / expert_bytes).
  int64_t width(int64_t expert_bytes) const;
  /// Least probability of a guess worth reading.
  double threshold() const { return options_.break_even * utilisation_; }
  double gap() const { return gap_; }
  double bandwidth() const { return bandwidth_; }

 private:
  void smooth(double& value, double newest) const {
    value += options_.smoothing * (newest - value);
  }
  Options options_;
  double gap_ = 0, utilisation_ = 1, bandwidth_;
  bool measured_ = false;
};

/// How often a guess of each rank came true, learned as it runs: what turns a predictor's order
/// into probabilities.
class RankCalibration {
 public:
  explicit RankCalibration(int64_t ranks);
  double probability(int64_t rank) const;
  /// The guess of that rank came true, or not.
  void learn(int64_t rank, double came_true);

 private:
  std::vector<double> share_;
};

}  // namespace cadre::engine
