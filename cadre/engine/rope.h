#pragma once

/// Rotary positions (Su et al., "RoFormer", 2021), with YaRN (Peng et al., 2023), linear and
/// Llama 3's stretching of wavelengths.

#include <cstdint>
#include <span>
#include <vector>

#include "cadre/engine/model_spec.h"

namespace cadre::engine {

class Rope {
 public:
  /// `factors`: per pair, divides the frequency (rope_freqs.weight); empty = none.
  Rope(const RopeSpec& spec, std::span<const float> factors);

  /// Cosines and sines of all pairs at a position, into angles [dimension]: cosines first. Computed
  /// in double precision, so that positions of any length are exact to the last float bit.
  void angles(int64_t position, float* angles) const;
  /// Rotates the first `dimension` elements of x.
  void rotate(const float* angles, float* x) const;
  int64_t dimension() const { return dimension_; }
  bool is_none() const { return layout_ == RopeLayout::kNone; }

 private:
  RopeLayout layout_;
  int64_t dimension_;
  double attention_factor_;
  std::vector<double> frequencies_;  ///< radians per position, per pair
};

}  // namespace cadre::engine
