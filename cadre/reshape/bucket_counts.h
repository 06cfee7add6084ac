#pragma once

/// How many numbers fall into each of 65536 buckets, by 16 of their bits: with the upper half in
/// one pass, and the lower half of the bucket of interest in another, the k-th largest of very many
/// is found exactly without holding or sorting them.

#include <cstdint>
#include <mutex>
#include <vector>

#include "cadre/base/memory.h"

namespace cadre::reshape {

class BucketCounts {
 public:
  static constexpr size_t kBuckets = 65536;

  void clear() { counts_.assign(kBuckets, 0); }
  /// Gives the memory back.
  void free() { release(counts_); }
  /// Adds a thread's own counts [kBuckets]. Any thread.
  template <typename Number>
  void add(const std::vector<Number>& own) {
    const std::lock_guard lock(mutex_);
    for (size_t i = 0; i < kBuckets; ++i) counts_[i] += static_cast<int64_t>(own[i]);
  }
  int64_t operator[](uint32_t bucket) const { return counts_[bucket]; }

  /// The bucket of the k-th largest, where `above` numbers are larger than any counted here;
  /// `above` becomes how many are in larger buckets, too. 0 when there are fewer than k.
  uint32_t bucket_of(int64_t k, int64_t& above) const {
    uint32_t bucket = kBuckets - 1;
    for (; bucket > 0 && above + counts_[bucket] < k; --bucket) above += counts_[bucket];
    return bucket;
  }

 private:
  std::mutex mutex_;
  std::vector<int64_t> counts_;
};

}  // namespace cadre::reshape
