#include "cadre/kernels/top_k.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <vector>

#include "cadre/base/parallel.h"
#include "cadre/kernels/partition.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/top_k.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"

// The k largest of a row in three steps, none of which branches on the scores:
//   1. Scores become integers that order alike, so that NaN and -0 need no care.
//   2. The row is cut into at least 2 k columns. The k-th largest of the columns' maxima is no
//      larger than the k-th largest score, and not much smaller: a few more than k scores reach it.
//   3. These candidates are ranked, each by counting those that come before it.

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

using Keys = hn::ScalableTag<int32_t>;

/// Below every score's key.
constexpr int32_t kNoKey = std::numeric_limits<int32_t>::min();
/// NaN's: below -inf's, above kNoKey.
constexpr int32_t kNanKey = kNoKey + 1;

/// Orders like the scores; -0 ties with +0.
template <class D>
HWY_INLINE auto keys_of(D d, hn::VFromD<D> scores) {
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(di, hn::Add(scores, hn::Zero(d)));
  // Negative numbers are turned over: of them the larger bits mean the smaller number.
  const auto turn =
      hn::And(hn::ShiftRight<31>(bits), hn::Set(di, std::numeric_limits<int32_t>::max()));
  const auto nan = hn::RebindMask(di, hn::IsNaN(scores));
  return hn::IfThenElse(nan, hn::Set(di, kNanKey), hn::Xor(bits, turn));
}

/// rank[i] = how many of keys [count] come before the i-th: larger ones, and equal ones of lower
/// index. Reads and writes whole vectors; what lies beyond `count` does not matter.
HWY_INLINE void rank(const int32_t* keys, int64_t count, int32_t* ranks) {
  const Keys d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t i = 0; i < count; i += lanes) {
    const auto key = hn::LoadU(d, keys + i);
    const auto index = hn::Iota(d, static_cast<int32_t>(i));
    auto before = hn::Zero(d);
    for (int64_t j = 0; j < count; ++j) {
      // One less where j is the lower index, so that an equal key counts there.
      const auto lower = hn::VecFromMask(d, hn::Gt(index, hn::Set(d, static_cast<int32_t>(j))));
      const auto counts = hn::Lt(hn::Add(key, lower), hn::Set(d, keys[j]));
      before = hn::Sub(before, hn::VecFromMask(d, counts));
    }
    hn::StoreU(before, d, ranks + i);
  }
}

/// Selects from rows of n scores; keeps its working space.
class Selector {
 public:
  explicit Selector(int64_t n) : n_(n), lanes_(static_cast<int64_t>(hn::Lanes(Keys()))) {
    // Whole vectors are read and written past the end.
    const auto room = static_cast<size_t>(n + 2 * lanes_);
    for (auto* part : {&keys_, &found_, &ids_, &ranks_, &order_}) part->resize(room, kNoKey);
  }

  /// The row that select() reads.
  void load(const float* scores) {
    for_each_vector(n_, [&](auto d, int64_t i) HWY_ATTR {
      const auto keys = keys_of(d, hn::LoadU(d, scores + i));
      hn::StoreU(keys, hn::RebindToSigned<decltype(d)>(), keys_.data() + i);
    });
  }

  /// The k best ids in order.
  void select(int64_t k, int32_t* ids) {
    const int64_t columns = (2 * k + lanes_ - 1) / lanes_ * lanes_;
    const int64_t count = collect(2 * columns <= n_ ? threshold(k, columns) : kNanKey);
    if (count > kMostRanked) return sort(count, k, ids);
    rank(found_.data(), count, ranks_.data());
    for (int64_t i = 0; i < count; ++i) order_[ranks_[i]] = ids_[i];
    std::copy_n(order_.begin(), k, ids);
  }

 private:
  /// Ranking more candidates costs more than sorting them: k is large, or many scores tie.
  static constexpr int64_t kMostRanked = 256;

  /// The k-th largest of the maxima of `columns` columns.
  int32_t threshold(int64_t k, int64_t columns) {
    const Keys d;
    for (int64_t column = 0; column < columns; column += lanes_) {
      auto most = hn::LoadU(d, keys_.data() + column);
      for (int64_t i = column + columns; i < n_; i += columns) {
        most = hn::Max(most, hn::LoadU(d, keys_.data() + i));
      }
      hn::StoreU(most, d, found_.data() + column);
    }
    rank(found_.data(), columns, ranks_.data());
    return found_[std::find(ranks_.begin(), ranks_.end(), k - 1) - ranks_.begin()];
  }

  /// Finds the keys that reach the threshold, by rising id; returns their number.
  int64_t collect(int32_t threshold) {
    const Keys d;
    const auto below = hn::Set(d, threshold - 1);
    int64_t count = 0;
    for (int64_t i = 0; i < n_; i += lanes_) {
      const auto key = hn::LoadU(d, keys_.data() + i);
      const auto reach = hn::Gt(key, below);
      if (hn::AllFalse(d, reach)) continue;
      // Not CompressStore: into memory the instruction is slow on some CPUs.
      const auto index = hn::Iota(d, static_cast<int32_t>(i));
      hn::StoreU(hn::Compress(key, reach), d, found_.data() + count);
      hn::StoreU(hn::Compress(index, reach), d, ids_.data() + count);
      count += static_cast<int64_t>(hn::CountTrue(d, reach));
    }
    return count;
  }

  /// One number orders like (key falling, id rising).
  void sort(int64_t count, int64_t k, int32_t* ids) {
    constexpr int64_t kLow = 0xffffffff;
    ordered_.resize(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      ordered_[i] = int64_t{found_[i]} * (kLow + 1) + (kLow - ids_[i]);
    }
    const auto end = ordered_.begin() + k;
    std::nth_element(ordered_.begin(), end - 1, ordered_.end(), std::greater<>());
    std::sort(ordered_.begin(), end, std::greater<>());
    for (int64_t i = 0; i < k; ++i) ids[i] = static_cast<int32_t>(kLow - (ordered_[i] & kLow));
  }

  int64_t n_, lanes_;
  std::vector<int32_t> keys_, found_, ids_, ranks_, order_;
  std::vector<int64_t> ordered_;
};

void top_k_range(const float* scores, int64_t begin, int64_t end, int64_t n, int64_t k,
                 int32_t* indices) {
  Selector selector(n);
  for (int64_t row = begin; row < end; ++row) {
    selector.load(scores + row * n);
    selector.select(k, indices + row * k);
  }
}

/// How many of the first `count` ids it takes to pass p; 0 = more than those.
HWY_INLINE int64_t passing(const float* scores, const int32_t* ids, int64_t count, float p) {
  float sum = 0;
  for (int64_t taken = 0; taken < count; ++taken) {
    sum += scores[ids[taken]];
    if (!(sum <= p)) return taken + 1;
  }
  return 0;
}

/// A few are mostly enough: their number is raised until they are.
void top_p_range(const float* scores, int64_t begin, int64_t end, int64_t n, float p,
                 int32_t* indices, int64_t* counts) {
  constexpr int64_t kFew = 16, kRaise = 4;
  Selector selector(n);
  for (int64_t row = begin; row < end; ++row) {
    const float* from = scores + row * n;
    int32_t* ids = indices + row * n;
    selector.load(from);
    counts[row] = 0;
    for (int64_t k = kFew; counts[row] == 0; k *= kRaise) {
      const int64_t count = std::min(k, n);
      selector.select(count, ids);
      counts[row] = passing(from, ids, count, p);
      if (count == n && counts[row] == 0) counts[row] = n;
    }
  }
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(top_k_range);
HWY_EXPORT(top_p_range);

void top_k(const float* scores, int64_t rows, int64_t n, int64_t k, int32_t* indices,
           float* values) {
  if (k == 0) return;
  parallel_for(rows, row_grain(4 * n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(top_k_range)(scores, begin, end, n, k, indices);
    if (values == nullptr) return;
    for (int64_t i = begin * k; i < end * k; ++i) values[i] = scores[i / k * n + indices[i]];
  });
}

void top_p(const float* scores, int64_t rows, int64_t n, float p, int32_t* indices,
           int64_t* counts) {
  parallel_for(rows, row_grain(8 * n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(top_p_range)(scores, begin, end, n, p, indices, counts);
  });
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
