#include "cadre/kernels/dispatch.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/kernels/partition.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/dispatch.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"
#include "hwy/cache_control.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

/// y = sum of weight[pair] * x[slot_of_pair[pair]] over `pairs` pairs; y stays in the first cache.
void combine_token(const float* x, const int64_t* slot_of_pair, const float* weight, int64_t pairs,
                   int64_t width, float* y) {
  std::fill(y, y + width, 0.0f);
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const float* row = x + slot_of_pair[pair] * width;
    const float factor = weight == nullptr ? 1.0f : weight[pair];
    for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR {
      const auto sum = hn::MulAdd(hn::LoadU(d, row + i), hn::Set(d, factor), hn::LoadU(d, y + i));
      hn::StoreU(sum, d, y + i);
    });
  }
}

/// Copies past the caches: what is written is not read soon, and need not be fetched first. y is
/// aligned to a vector, width a multiple of one.
void gather_streaming(const float* x, const int64_t* rows, int64_t begin, int64_t end,
                      int64_t width, float* y) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t slot = begin; slot < end; ++slot) {
    const float* row = x + rows[slot] * width;
    for (int64_t i = 0; i < width; i += lanes) {
      hn::Stream(hn::LoadU(d, row + i), d, y + slot * width + i);
    }
  }
  hwy::FlushStream();
}

void scale_row(const float* x, float factor, int64_t width, float* y) {
  for_each_vector(width, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, factor)), d, y + i);
  });
}

float dot_row(const float* a, const float* b, int64_t width) {
  return sum_over(width, [&](auto d, int64_t i) HWY_ATTR {
    return hn::Mul(hn::LoadU(d, a + i), hn::LoadU(d, b + i));
  });
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {
namespace {

/// Copies of so many floats do not stay in any cache.
constexpr int64_t kStreamedFloats = int64_t{1} << 24;
constexpr int64_t kVectorBytes = 64;

/// Pairs [begin, end) of `chunk`: how many each expert gets, in counts [experts].
void count_chunk(const int32_t* expert, int64_t begin, int64_t end, int64_t experts,
                 int64_t* counts) {
  for (int64_t pair = begin; pair < end; ++pair) {
    if (expert[pair] < 0 || expert[pair] >= experts) {
      throw Error("sort_by_expert: pair {} names expert {}, there are {}", pair, expert[pair],
                  experts);
    }
    ++counts[expert[pair]];
  }
}

/// Turns counts [chunks, experts] into each chunk's first slot per expert, and fills the offsets.
void start_slots(int64_t chunks, int64_t experts, int64_t* counts, int64_t* expert_offsets) {
  int64_t slot = 0;
  for (int64_t e = 0; e < experts; ++e) {
    expert_offsets[e] = slot;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t count = counts[chunk * experts + e];
      counts[chunk * experts + e] = slot;
      slot += count;
    }
  }
  expert_offsets[experts] = slot;
}

}  // namespace

HWY_EXPORT(combine_token);
HWY_EXPORT(gather_streaming);
HWY_EXPORT(scale_row);
HWY_EXPORT(dot_row);

void sort_by_expert(const int32_t* expert, int64_t pairs, int64_t experts, int64_t* expert_offsets,
                    int64_t* order) {
  // A chunk should be worth a thread and have clearly more pairs than its table has entries.
  const int64_t worth = pairs / std::max<int64_t>(16384, 4 * experts);
  const int64_t chunks = std::clamp<int64_t>(worth, 1, num_threads());
  const int64_t size = (pairs + chunks - 1) / chunks;
  std::vector<int64_t> counts(chunks * experts);
  parallel_tasks(chunks, [&](int64_t chunk) {
    const int64_t end = std::min(pairs, (chunk + 1) * size);
    count_chunk(expert, chunk * size, end, experts, counts.data() + chunk * experts);
  });
  start_slots(chunks, experts, counts.data(), expert_offsets);
  parallel_tasks(chunks, [&](int64_t chunk) {
    int64_t* next = counts.data() + chunk * experts;
    const int64_t end = std::min(pairs, (chunk + 1) * size);
    for (int64_t pair = chunk * size; pair < end; ++pair) order[next[expert[pair]]++] = pair;
  });
}

void gather_rows(const float* x, const int64_t* rows, int64_t slots, int64_t width, float* y) {
  const size_t bytes = static_cast<size_t>(width) * sizeof(float);
  const bool aligned = (reinterpret_cast<uintptr_t>(y) | bytes) % kVectorBytes == 0;
  const bool streams = aligned && slots * width >= kStreamedFloats;
  parallel_for(slots, row_grain(width), [&](int64_t begin, int64_t end) {
    if (streams) return HWY_DYNAMIC_DISPATCH(gather_streaming)(x, rows, begin, end, width, y);
    for (int64_t slot = begin; slot < end; ++slot) {
      std::memcpy(y + slot * width, x + rows[slot] * width, bytes);
    }
  });
}

void combine_rows(const float* x, const int64_t* token_offsets, const int64_t* slot_of_pair,
                  const float* weight, int64_t tokens, int64_t width, float* y) {
  parallel_for(tokens, row_grain(4 * width), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t first = token_offsets[token];
      HWY_DYNAMIC_DISPATCH(combine_token)
      (x, slot_of_pair + first, weight == nullptr ? nullptr : weight + first,
       token_offsets[token + 1] - first, width, y + token * width);
    }
  });
}

void combine_rows_backward(const float* dy, const float* x, const int64_t* token_offsets,
                           const int64_t* slot_of_pair, const float* weight, int64_t tokens,
                           int64_t width, float* dx, float* dweight) {
  parallel_for(tokens, row_grain(4 * width), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const float* grad = dy + token * width;
      for (int64_t pair = token_offsets[token]; pair < token_offsets[token + 1]; ++pair) {
        const int64_t at = slot_of_pair[pair] * width;
        const float factor = weight == nullptr ? 1.0f : weight[pair];
        HWY_DYNAMIC_DISPATCH(scale_row)(grad, factor, width, dx + at);
        if (dweight != nullptr) dweight[pair] = HWY_DYNAMIC_DISPATCH(dot_row)(x + at, grad, width);
      }
    }
  });
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
