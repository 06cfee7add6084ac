#include <cstring>
#include <limits>

#include "cadre/kernels/panel_targets.h"
#include "cadre/kernels/panels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/quantize_activations.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/panel_simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {
#if CADRE_PANEL_SIMD

/// Bits of the largest magnitude: as integers even NaNs have an order.
HWY_INLINE int32_t largest_bits(const float* x) {
  const TagF d;
  const TagI di;
  VecI most = hn::Zero(di);
  for (int i = 0; i < 32; i += kLanes) {
    most = hn::Max(most, hn::BitCast(di, hn::Abs(hn::LoadU(d, x + i))));
  }
  return hn::GetLane(hn::MaxOfLanes(di, most));
}

HWY_INLINE void quantize_block(const float* x, int8_t* q, float* scale, int16_t* sums) {
  const TagF d;
  const TagI di;
  const hn::Rebind<int8_t, TagI> bytes;
  const int32_t most = largest_bits(x);
  float amax;
  std::memcpy(&amax, &most, 4);
  const bool finite = most < 0x7f800000;
  if (!finite || amax < 1e-30f) {
    *scale = finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    sums[0] = sums[1] = 0;
    std::memset(q, 0, 32);
    return;
  }
  *scale = amax / 127.0f;
  const VecF inverse = hn::Set(d, 127.0f / amax);
  for (int half = 0; half < 2; ++half) {
    VecI sum = hn::Zero(di);
    for (int i = 16 * half; i < 16 * half + 16; i += kLanes) {
      const VecI rounded = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), inverse));
      hn::StoreU(hn::DemoteTo(bytes, rounded), bytes, q + i);
      sum = hn::Add(sum, rounded);
    }
    sums[half] = static_cast<int16_t>(hn::GetLane(hn::SumOfLanes(di, sum)));
  }
}

void quantize(const float* x, int64_t tokens, int64_t columns, int8_t* q, float* scale,
              int16_t* sums) {
  for (int64_t b = 0; b < tokens * (columns / kActivationBlock); ++b) {
    quantize_block(x + 32 * b, q + 32 * b, scale + b, sums + 2 * b);
  }
}

#else

void quantize(const float* x, int64_t tokens, int64_t columns, int8_t* q, float* scale,
              int16_t* sums) {
  quantize_activations_reference(x, tokens, columns, q, scale, sums);
}

#endif  // CADRE_PANEL_SIMD
}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(quantize);

void quantize_activations(const float* x, int64_t tokens, int64_t columns, int8_t* q, float* scale,
                          int16_t* sums) {
  HWY_DYNAMIC_DISPATCH(quantize)(x, tokens, columns, q, scale, sums);
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
