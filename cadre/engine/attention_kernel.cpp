#include "cadre/engine/attention_kernel.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/engine/attention_kernel.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
//
#include "cadre/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::engine::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace simd = cadre::kernels::HWY_NAMESPACE;

constexpr int64_t kSumLanes = 16;
constexpr int kVectors = 4;      ///< of accumulators a row: with 4 rows 16 registers
constexpr int64_t kMaxRows = 4;  ///< that share one pass over the page
using Tag = hn::CappedTag<float, kSumLanes>;

template <class D>
HWY_INLINE hn::VFromD<D> load_stored(D d, const uint16_t* from) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, from))));
}
template <class D>
HWY_INLINE hn::VFromD<D> load_stored(D d, const int8_t* from) {
  const hn::Rebind<int8_t, D> d8;
  const hn::RebindToSigned<D> d32;
  return hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d8, from)));
}

/// x *= scales, of all tokens.
HWY_INLINE void scale_tokens(const float* scales, float* x) {
  const Tag d;
  const auto width = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t t = 0; t < kPageTokens; t += width) {
    hn::Store(hn::Mul(hn::Load(d, x + t), hn::LoadU(d, scales + t)), d, x + t);
  }
}
HWY_INLINE void scale_scores(const AttentionPage&, float*) {}
HWY_INLINE void scale_weights(const AttentionPage&, float*) {}
HWY_INLINE void scale_scores(const Q8AttentionPage& page, float* s) {
  scale_tokens(page.key_scales, s);
}
HWY_INLINE void scale_weights(const Q8AttentionPage& page, float* p) {
  scale_tokens(page.value_scales, p);
}

/// Fetches `count` numbers ahead of their use: a page's parts are too short for the hardware to see
/// them coming.
template <class T>
HWY_INLINE void fetch(const T* at, int64_t count) {
  constexpr int64_t kLine = 64 / sizeof(T);
  for (int64_t i = 0; i < count; i += kLine) hwy::Prefetch(at + i);
}

/// s[r][t] for all 64 tokens of the page. `values` (or null) are fetched meanwhile.
template <int kRows, class Page>
HWY_INLINE void scores(const Page& page, const AttentionRow* rows, decltype(Page::values) values,
                       float (*s)[kPageTokens]) {
  const Tag d;
  const auto width = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t tile = 0; tile < kPageTokens; tile += kVectors * width) {
    hn::VFromD<Tag> acc[kRows][kVectors];
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) acc[r][v] = hn::Zero(d);
    }
    for (int64_t c = 0; c < page.key_width; ++c) {
      const auto* keys = page.keys + c * kPageTokens + tile;
      if (values != nullptr && tile == 0 && c < page.value_width) {
        fetch(values + c * kPageTokens, kPageTokens);
      }
      hn::VFromD<Tag> k[kVectors];
      for (int v = 0; v < kVectors; ++v) k[v] = load_stored(d, keys + v * width);
      for (int r = 0; r < kRows; ++r) {
        const auto q = hn::Set(d, rows[r].q[c]);
        for (int v = 0; v < kVectors; ++v) acc[r][v] = hn::MulAdd(q, k[v], acc[r][v]);
      }
    }
    const auto factor = hn::Set(d, page.scale);
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        hn::Store(hn::Mul(acc[r][v], factor), d, s[r] + tile + v * width);
      }
    }
  }
}

HWY_INLINE float sum_of(const float* p) {
  const Tag d;
  const auto width = static_cast<int64_t>(hn::Lanes(d));
  HWY_ALIGN float lanes[kSumLanes];
  for (int64_t lane = 0; lane < kSumLanes; lane += width) {
    auto acc = hn::Load(d, p + lane);
    for (int64_t i = lane + kSumLanes; i < kPageTokens; i += kSumLanes) {
      acc = hn::Add(acc, hn::Load(d, p + i));
    }
    hn::Store(acc, d, lanes + lane);
  }
  for (int64_t half = kSumLanes / 2; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  }
  return lanes[0];
}

HWY_INLINE float exp_of(float x) {
  const hn::CappedTag<float, 1> one;
  return hn::GetLane(simd::fast_exp(one, hn::Set(one, x)));
}

/// Scores become weights; the row's state moves to the new maximum. Returns c.
HWY_INLINE float weigh(AttentionRow& row, float* s) {
  const Tag d;
  const auto width = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t t = 0; t < row.first; ++t) s[t] = -std::numeric_limits<float>::infinity();
  for (int64_t t = row.last; t < kPageTokens; ++t) s[t] = -std::numeric_limits<float>::infinity();
  const float most = std::max(row.most, simd::max_of(s, kPageTokens));
  const auto shift = hn::Set(d, most);
  for (int64_t t = 0; t < kPageTokens; t += width) {
    hn::Store(simd::fast_exp(d, hn::Sub(hn::Load(d, s + t), shift)), d, s + t);
  }
  const float shrink = row.sum == 0 ? 0.0F : exp_of(row.most - most);
  row.sum = row.sum * shrink + sum_of(s);
  row.most = most;
  return shrink;
}

/// o = o c + p V over tokens [first, last), for columns [at, at + kVecs vectors). `next_keys` (or
/// null) are fetched meanwhile.
template <int kRows, int kVecs, class D, class Page>
HWY_INLINE void weighted_values(D d, const Page& page, AttentionRow* rows,
                                const float (*p)[kPageTokens], const float* shrink, int64_t at,
                                decltype(Page::keys) next_keys) {
  const auto width = static_cast<int64_t>(hn::Lanes(d));
  hn::VFromD<D> acc[kRows][kVecs];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVecs; ++v) {
      acc[r][v] = hn::Mul(hn::LoadU(d, rows[r].o + at + v * width), hn::Set(d, shrink[r]));
    }
  }
  for (int64_t t = rows[0].first; t < rows[0].last; ++t) {
    const auto* values = page.values + t * page.value_width + at;
    if (next_keys != nullptr) fetch(next_keys + t * page.value_width + at, kVecs * width);
    for (int v = 0; v < kVecs; ++v) {
      const auto x = load_stored(d, values + v * width);
      for (int r = 0; r < kRows; ++r) {
        acc[r][v] = hn::MulAdd(hn::Set(d, p[r][t]), x, acc[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVecs; ++v) hn::StoreU(acc[r][v], d, rows[r].o + at + v * width);
  }
}

/// kRows rows that see the same tokens; the `first` ones of a page fetch what is read next.
template <int kRows, class Page>
void attend_rows(const Page& page, AttentionRow* rows, bool first) {
  HWY_ALIGN float s[kRows][kPageTokens];
  float shrink[kRows];
  const auto next_keys = first ? page.next_keys : nullptr;
  scores<kRows>(page, rows, first ? page.values : nullptr, s);
  for (int r = 0; r < kRows; ++r) {
    scale_scores(page, s[r]);
    shrink[r] = weigh(rows[r], s[r]);
    scale_weights(page, s[r]);
  }
  const Tag d;
  const auto width = static_cast<int64_t>(hn::Lanes(d));
  int64_t at = 0;
  for (; at + kVectors * width <= page.value_width; at += kVectors * width) {
    weighted_values<kRows, kVectors>(d, page, rows, s, shrink, at, next_keys);
  }
  for (; at + width <= page.value_width; at += width) {
    weighted_values<kRows, 1>(d, page, rows, s, shrink, at, next_keys);
  }
  const hn::CappedTag<float, 1> one;
  for (; at < page.value_width; ++at)
    weighted_values<kRows, 1>(one, page, rows, s, shrink, at, next_keys);
}

template <class Page>
void attend(const Page& page, AttentionRow* rows, int64_t count) {
  bool first = true;
  for (int64_t i = 0; i < count;) {
    if (rows[i].first >= rows[i].last) {
      ++i;
      continue;
    }
    int64_t same = 1;
    while (same < kMaxRows && i + same < count && rows[i + same].first == rows[i].first &&
           rows[i + same].last == rows[i].last) {
      ++same;
    }
    if (same == kMaxRows) {
      attend_rows<kMaxRows>(page, rows + i, first);
      first = false;
    } else {
      for (int64_t r = 0; r < same; ++r, first = false) attend_rows<1>(page, rows + i + r, first);
    }
    i += same;
  }
}

void attend_bf16(const AttentionPage& page, AttentionRow* rows, int64_t count) {
  attend(page, rows, count);
}
void attend_q8(const Q8AttentionPage& page, AttentionRow* rows, int64_t count) {
  attend(page, rows, count);
}

void merge(const AttentionState& later, int64_t width, AttentionState& state) {
  if (later.sum == 0) return;
  const float most = std::max(state.most, later.most);
  const float ours = state.sum == 0 ? 0.0F : exp_of(state.most - most);
  const float theirs = exp_of(later.most - most);
  state.most = most;
  state.sum = state.sum * ours + later.sum * theirs;
  float* o = state.values;
  const float* x = later.values;
  simd::for_each_vector(width, [=](auto d, int64_t i) {
    const auto kept = hn::Mul(hn::LoadU(d, o + i), hn::Set(d, ours));
    hn::StoreU(hn::MulAdd(hn::LoadU(d, x + i), hn::Set(d, theirs), kept), d, o + i);
  });
}

void finish(AttentionState& state, float sink, int64_t width) {
  const float most = std::max(state.most, sink);
  const float kept = exp_of(state.most - most);
  const float total = state.sum * kept + exp_of(sink - most);
  float* o = state.values;
  simd::for_each_vector(width, [=](auto d, int64_t i) {
    const auto x = hn::Mul(hn::LoadU(d, o + i), hn::Set(d, kept));
    hn::StoreU(hn::Div(x, hn::Set(d, total)), d, o + i);
  });
}

}  // namespace cadre::engine::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::engine {

HWY_EXPORT(attend_bf16);
HWY_EXPORT(attend_q8);
HWY_EXPORT(merge);
HWY_EXPORT(finish);

void attend_page(const AttentionPage& page, AttentionRow* rows, int64_t count) {
  HWY_DYNAMIC_DISPATCH(attend_bf16)(page, rows, count);
}
void attend_page(const Q8AttentionPage& page, AttentionRow* rows, int64_t count) {
  HWY_DYNAMIC_DISPATCH(attend_q8)(page, rows, count);
}
void merge_attention(const AttentionState& later, int64_t width, AttentionState& state) {
  HWY_DYNAMIC_DISPATCH(merge)(later, width, state);
}
void finish_attention(AttentionState& state, float sink, int64_t width) {
  HWY_DYNAMIC_DISPATCH(finish)(state, sink, width);
}

}  // namespace cadre::engine
#endif
