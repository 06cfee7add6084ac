#include "cadre/reshape/rank_threshold.h"

#include <limits>

namespace cadre::reshape {
namespace {

constexpr uint32_t kZero = 0x80000000u;

}  // namespace

void RankThreshold::begin(int pass, int64_t tiles) {
  if (pass < 2)
    counts_.clear();
  else
    before_.assign(static_cast<size_t>(tiles), 0);
}

void RankThreshold::count(int pass, int64_t tile, std::span<const float> values) {
  if (pass == 2) {
    int64_t equals = 0;
    for (const float value : values) equals += ordered_bits(value) == threshold_ ? 1 : 0;
    before_[static_cast<size_t>(tile)] = equals;
    return;
  }
  std::vector<uint32_t> own(BucketCounts::kBuckets);
  int64_t not_positive = 0;
  for (const float value : values) {
    const uint32_t bits = ordered_bits(value);
    if (pass == 0) {
      ++own[bits >> 16];
      not_positive += bits <= kZero ? 1 : 0;
    } else if (bits >> 16 == threshold_ >> 16) {
      ++own[bits & 0xffffu];
    }
  }
  counts_.add(own);
  not_positive_ += not_positive;
}

void RankThreshold::end(int pass, int64_t k) {
  if (pass == 0) k_ = k;
  if (k_ <= 0) {
    threshold_ = std::numeric_limits<uint32_t>::max();
    keep_equals_ = 0;
    ties_ = false;
    counts_.free();
    return;
  }
  if (pass == 0) {
    threshold_ = counts_.bucket_of(k_, above_) << 16;
  } else if (pass == 1) {
    threshold_ |= counts_.bucket_of(k_, above_);
    keep_equals_ = k_ - above_;
    ties_ = counts_[threshold_ & 0xffffu] > keep_equals_;
    counts_.free();
  } else {
    int64_t sum = 0;
    for (int64_t& tile : before_) {
      const int64_t here = tile;
      tile = sum;
      sum += here;
    }
  }
}

}  // namespace cadre::reshape
