// Vector helpers shared by the kernels; compiled once per Highway target, so the guard toggles and
// the file is included after hwy/foreach_target.h.

#if defined(CADRE_KERNELS_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CADRE_KERNELS_SIMD_INL_H_
#undef CADRE_KERNELS_SIMD_INL_H_
#else
#define CADRE_KERNELS_SIMD_INL_H_
#endif

#include <cstdint>
#include <limits>

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Calls f(tag, i) for whole vectors over [0, n), then for single floats: the tail costs at most
/// lanes - 1 scalar rounds and never reads past the end.
template <class F>
HWY_INLINE void for_each_vector(int64_t n, F f) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) f(d, i);
  const hn::CappedTag<float, 1> one;
  for (; i < n; ++i) f(one, i);
}

/// Sum over [0, n) of f(tag, i). Two accumulators hide the latency of the addition.
template <class F>
HWY_INLINE float sum_over(int64_t n, F f) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto even = hn::Zero(d);
  auto odd = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    even = hn::Add(even, f(d, i));
    odd = hn::Add(odd, f(d, i + lanes));
  }
  for (; i + lanes <= n; i += lanes) even = hn::Add(even, f(d, i));
  float total = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  const hn::CappedTag<float, 1> one;
  for (; i < n; ++i) total += hn::GetLane(f(one, i));
  return total;
}

/// Largest of x[0, n), -inf when n = 0. A NaN may or may not come through.
HWY_INLINE float max_of(const float* HWY_RESTRICT x, int64_t n) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  float largest = -std::numeric_limits<float>::infinity();
  auto most = hn::Set(d, largest);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) most = hn::Max(most, hn::LoadU(d, x + i));
  largest = hn::GetLane(hn::MaxOfLanes(d, most));
  for (; i < n; ++i) largest = x[i] > largest ? x[i] : largest;
  return largest;
}

/// e^x within 2 ulp; 0 below -86.9, saturates above 88.3, NaN stays NaN. Half the cost of
/// hwy/contrib/math's Exp, which turns NaN into 0 and so would hide a diverged run.
/// Cody-Waite reduction to r in [-ln2/2, ln2/2], then the Taylor polynomial of degree 7 (rest <
/// 6e-9).
template <class D, class V = hn::VFromD<D>>
HWY_INLINE V fast_exp(D d, V x) {
  const hn::RebindToSigned<D> di;
  // The order of the arguments lets a NaN pass on x86: min and max return the second one.
  const V bounded = hn::Min(hn::Set(d, 88.3f), hn::Max(hn::Set(d, -87.0f), x));
  const auto exponent = hn::NearestInt(hn::Mul(bounded, hn::Set(d, 1.44269504f)));
  const V whole = hn::ConvertTo(d, exponent);
  V r = hn::NegMulAdd(whole, hn::Set(d, 0.693359375f), bounded);
  r = hn::NegMulAdd(whole, hn::Set(d, -2.12194440e-4f), r);
  V p = hn::Set(d, 1.0f / 5040);
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 720));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 120));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 24));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f / 6));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.0f));
  const V scaled = hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(exponent)));
  const V result = hn::IfThenElse(hn::IsNaN(x), x, scaled);
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -86.9f)), result);
}

/// 1 / (1 + e^-x).
template <class D, class V = hn::VFromD<D>>
HWY_INLINE V sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, fast_exp(d, hn::Neg(x))));
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // toggle
