#pragma once

/// The k largest of very many numbers, exactly, without holding them: pass 1 counts the upper 16
/// bits of each, pass 2 the lower 16 bits of those in the bucket where the k-th falls, pass 3 (only
/// when several numbers equal the k-th) how many of them stand in each tile, so that ties go by
/// index.

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "cadre/reshape/bucket_counts.h"

namespace cadre::reshape {

/// A float's bits, so that unsigned order is the numbers' order (NaN excluded).
inline uint32_t ordered_bits(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  return bits ^ (bits >> 31 != 0 ? 0xffffffffu : 0x80000000u);
}

inline float value_of_ordered(uint32_t bits) {
  return __builtin_bit_cast(float, bits ^ (bits >> 31 != 0 ? 0x80000000u : 0xffffffffu));
}

class RankThreshold {
 public:
  /// Memory while it counts.
  static constexpr int64_t kScratchBytes = int64_t{65536} * sizeof(int64_t);
  /// A thread's while it counts one tile.
  static constexpr int64_t kTileBytes = int64_t{65536} * sizeof(uint32_t);

  void begin(int pass, int64_t tiles);
  /// Any thread, any order; the sums do not depend on either.
  void count(int pass, int64_t tile, std::span<const float> values);
  /// `k` is needed after pass 0: how many are kept. Frees the counters after the last pass.
  void end(int pass, int64_t k);
  /// 3 while ties are not excluded, 2 when the k-th number is alone or all its equals are kept.
  int passes() const { return ties_ ? 3 : 2; }

  /// Whether value is kept; `equals` runs over the tile's numbers that equal the k-th.
  bool keeps(float value, int64_t tile, int64_t& equals) const {
    const uint32_t bits = ordered_bits(value);
    if (bits != threshold_) return bits > threshold_;
    return !ties_ ? keep_equals_ > 0 : before_[static_cast<size_t>(tile)] + equals++ < keep_equals_;
  }
  /// After pass 1: the k-th largest number.
  float value() const { return value_of_ordered(threshold_); }
  /// After pass 0: numbers that are zero or smaller.
  int64_t not_positive() const { return not_positive_; }

 private:
  BucketCounts counts_;
  std::vector<int64_t> before_;
  uint32_t threshold_ = 0;
  int64_t above_ = 0, keep_equals_ = 0, k_ = 0;
  std::atomic<int64_t> not_positive_ = 0;
  bool ties_ = true;
};

}  // namespace cadre::reshape
