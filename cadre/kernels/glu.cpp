#include <bit>
#include <cmath>

#include "cadre/kernels/panel_ffn.h"
#include "cadre/kernels/panel_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/glu.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/panel_simd-inl.h"

// The constants of both forms; once for all targets.
#ifndef CADRE_KERNELS_GLU_CONSTANTS
#define CADRE_KERNELS_GLU_CONSTANTS
namespace cadre::kernels {
/// e^x = 2^n e^r, r = x - n ln 2 in two steps (Cody-Waite), Taylor to the 7th degree: 2 ulp.
constexpr float kLowest = -87.0f, kHighest = 88.0f;
constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
constexpr float kTaylor[] = {1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24,
                             1.0f / 6,    0.5f,       1.0f,       1.0f};
constexpr float kLimit = 7.0f, kSharpness = 1.702f;
constexpr float kGeluCube = 0.044715f, kGeluScale = 1.5957691f;
}  // namespace cadre::kernels
#endif

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {
#if CADRE_PANEL_SIMD

template <class D, class V = hn::VFromD<D>>
HWY_INLINE V canonical_exp(D d, V x) {
  const hn::RebindToSigned<D> di;
  // Not Min and Max: what they make of a NaN differs between machines.
  x = hn::IfThenElse(hn::Gt(x, hn::Set(d, kLowest)), x, hn::Set(d, kLowest));
  x = hn::IfThenElse(hn::Gt(x, hn::Set(d, kHighest)), hn::Set(d, kHighest), x);
  const auto n = hn::NearestInt(hn::Mul(x, hn::Set(d, kLog2E)));
  const V whole = hn::ConvertTo(d, n);
  V r = hn::NegMulAdd(whole, hn::Set(d, kLn2High), x);
  r = hn::NegMulAdd(whole, hn::Set(d, kLn2Low), r);
  V p = hn::Set(d, kTaylor[0]);
#pragma GCC unroll 8
  for (int i = 1; i < 8; ++i) p = hn::MulAdd(p, r, hn::Set(d, kTaylor[i]));
  return hn::BitCast(d, hn::Add(hn::BitCast(di, p), hn::ShiftLeft<23>(n)));
}

template <class D, class V = hn::VFromD<D>>
HWY_INLINE V canonical_sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  return hn::Div(one, hn::Add(one, canonical_exp(d, hn::Neg(x))));
}

template <class D, class V = hn::VFromD<D>>
HWY_INLINE V swi_glu(D d, V g, V u) {
  return hn::Mul(hn::Mul(g, canonical_sigmoid(d, g)), u);
}

template <class D, class V = hn::VFromD<D>>
HWY_INLINE V clamped_swi_glu(D d, V g, V u) {
  const V limit = hn::Set(d, kLimit), low = hn::Set(d, -kLimit);
  g = hn::IfThenElse(hn::Gt(g, limit), limit, g);
  u = hn::IfThenElse(hn::Gt(u, limit), limit, u);
  u = hn::IfThenElse(hn::Lt(u, low), low, u);
  const V gate = hn::Mul(g, canonical_sigmoid(d, hn::Mul(g, hn::Set(d, kSharpness))));
  return hn::Mul(gate, hn::Add(u, hn::Set(d, 1.0f)));
}

template <class D, class V = hn::VFromD<D>>
HWY_INLINE V gelu_glu(D d, V g, V u) {
  const V square = hn::Mul(g, g);
  const V cubic = hn::MulAdd(hn::Mul(square, hn::Set(d, kGeluCube)), g, g);
  const V gate = hn::Mul(g, canonical_sigmoid(d, hn::Mul(cubic, hn::Set(d, kGeluScale))));
  return hn::Mul(gate, u);
}

template <class D>
HWY_INLINE void glu_step(D d, GluKind kind, float* gate, const float* up) {
  const auto g = hn::LoadU(d, gate), u = hn::LoadU(d, up);
  switch (kind) {
    case GluKind::kSwiGlu:
      return hn::StoreU(swi_glu(d, g, u), d, gate);
    case GluKind::kClampedSwiGlu:
      return hn::StoreU(clamped_swi_glu(d, g, u), d, gate);
    case GluKind::kGeluGlu:
      return hn::StoreU(gelu_glu(d, g, u), d, gate);
  }
}

void glu_rows(GluKind kind, float* gate, const float* up, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) glu_step(TagF(), kind, gate + i, up + i);
  for (; i < n; ++i) glu_step(hn::CappedTag<float, 1>(), kind, gate + i, up + i);
}

void combine_columns(const float* slots, const float* weight, int64_t per_token, int64_t width,
                     int64_t columns, float* y) {
  int64_t c = 0;
  for (; c + kLanes <= columns; c += kLanes) {
    const TagF d;
    VecF sum = hn::Zero(d);
    for (int64_t i = 0; i < per_token; ++i) {
      sum = hn::MulAdd(hn::Set(d, weight[i]), hn::LoadU(d, slots + i * width + c), sum);
    }
    hn::StoreU(sum, d, y + c);
  }
  for (; c < columns; ++c) {
    y[c] = 0;
    for (int64_t i = 0; i < per_token; ++i) {
      y[c] = std::fma(weight[i], slots[i * width + c], y[c]);
    }
  }
}

#else

void glu_rows(GluKind kind, float* gate, const float* up, int64_t n) {
  glu_reference(kind, gate, up, n);
}

void combine_columns(const float* slots, const float* weight, int64_t per_token, int64_t width,
                     int64_t columns, float* y) {
  for (int64_t c = 0; c < columns; ++c) {
    y[c] = 0;
    for (int64_t i = 0; i < per_token; ++i) {
      y[c] = std::fma(weight[i], slots[i * width + c], y[c]);
    }
  }
}

#endif  // CADRE_PANEL_SIMD
}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {
namespace {

float scalar_exp(float x) {
  x = x > kLowest ? x : kLowest;
  x = x > kHighest ? kHighest : x;
  const float whole = std::nearbyint(x * kLog2E);
  float r = std::fma(-whole, kLn2High, x);
  r = std::fma(-whole, kLn2Low, r);
  float p = kTaylor[0];
  for (int i = 1; i < 8; ++i) p = std::fma(p, r, kTaylor[i]);
  const auto n = static_cast<uint32_t>(static_cast<int32_t>(whole));
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (n << 23));
}

float scalar_sigmoid(float x) { return 1.0f / (1.0f + scalar_exp(-x)); }

float scalar_glu(GluKind kind, float g, float u) {
  switch (kind) {
    case GluKind::kSwiGlu:
      return g * scalar_sigmoid(g) * u;
    case GluKind::kClampedSwiGlu:
      g = g > kLimit ? kLimit : g;
      u = u > kLimit ? kLimit : u;
      u = u < -kLimit ? -kLimit : u;
      return g * scalar_sigmoid(g * kSharpness) * (u + 1.0f);
    case GluKind::kGeluGlu:
      return g * scalar_sigmoid(std::fma(g * g * kGeluCube, g, g) * kGeluScale) * u;
  }
  return 0;
}

}  // namespace

HWY_EXPORT(glu_rows);
HWY_EXPORT(combine_columns);

void glu(GluKind kind, float* gate, const float* up, int64_t n) {
  HWY_DYNAMIC_DISPATCH(glu_rows)(kind, gate, up, n);
}

void glu_reference(GluKind kind, float* gate, const float* up, int64_t n) {
  for (int64_t i = 0; i < n; ++i) gate[i] = scalar_glu(kind, gate[i], up[i]);
}

void combine_slots(const float* slots, const float* weight, int64_t tokens, int64_t per_token,
                   int64_t width, int64_t first, int64_t last, float* y) {
  for (int64_t t = 0; t < tokens; ++t) {
    HWY_DYNAMIC_DISPATCH(combine_columns)
    (slots + t * per_token * width + first, weight + t * per_token, per_token, width, last - first,
     y + t * width + first);
  }
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
