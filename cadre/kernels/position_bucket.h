#pragma once

/// T5's buckets of relative positions (Raffel et al., "Exploring the Limits of Transfer Learning
/// with a Unified Text-to-Text Transformer", 2020, section 2.1): attention's learned bias has one
/// number a bucket, not one a distance.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>

namespace cadre::kernels {

/// The bucket of `relative` (key minus query), from 0 to buckets - 1. Half of the distances'
/// buckets hold one distance each, the others grow with its logarithm up to max_distance. Both
/// ways: the upper half of all buckets is for keys after the query; else such keys count as
/// distance 0.
inline int64_t position_bucket(int64_t relative, int64_t buckets, int64_t max_distance,
                               bool both_ways) {
  int64_t offset = 0;
  int64_t distance = std::max<int64_t>(0, -relative);
  if (both_ways) {
    buckets /= 2;
    offset = relative > 0 ? buckets : 0;
    distance = std::abs(relative);
  }
  const int64_t exact = buckets / 2;
  if (distance < exact) return offset + distance;
  const float share = std::log(static_cast<float>(distance) / static_cast<float>(exact)) /
                      std::log(static_cast<float>(max_distance) / static_cast<float>(exact));
  const auto far = exact + static_cast<int64_t>(share * static_cast<float>(buckets - exact));
  return offset + std::min(far, buckets - 1);
}

}  // namespace cadre::kernels
