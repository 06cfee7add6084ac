#include "cadre/engine/vector_math.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/engine/vector_math.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
//
#include "cadre/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::engine::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;
namespace simd = cadre::kernels::HWY_NAMESPACE;

constexpr int64_t kSumLanes = 16;
using Tag = hn::CappedTag<float, kSumLanes>;

float sum_of_lanes(float* lanes) {
  for (int64_t width = kSumLanes / 2; width > 0; width /= 2) {
    for (int64_t j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}

/// Sum over [0, n) of term(tag, i, acc), which adds element i to acc; lanes as the header says.
template <class Term>
HWY_INLINE float lane_sum(int64_t n, Term term) {
  const Tag d;
  const auto width = static_cast<int64_t>(hn::Lanes(d));
  HWY_ALIGN float lanes[kSumLanes] = {};
  const int64_t whole = n / kSumLanes * kSumLanes;
  for (int64_t lane = 0; lane < kSumLanes; lane += width) {
    auto acc = hn::Zero(d);
    for (int64_t i = lane; i < whole; i += kSumLanes) acc = term(d, i, acc);
    hn::Store(acc, d, lanes + lane);
  }
  const hn::CappedTag<float, 1> one;
  for (int64_t i = whole; i < n; ++i) {
    lanes[i - whole] = hn::GetLane(term(one, i, hn::Set(one, lanes[i - whole])));
  }
  return sum_of_lanes(lanes);
}

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* y) {
  const float squares = lane_sum(n, [x](auto d, int64_t i, auto acc) {
    const auto v = hn::LoadU(d, x + i);
    return hn::MulAdd(v, v, acc);
  });
  const float inverse = 1.0F / std::sqrt(squares / static_cast<float>(n) + eps);
  simd::for_each_vector(n, [=](auto d, int64_t i) {
    const auto v = hn::Mul(hn::LoadU(d, x + i), hn::Set(d, inverse));
    hn::StoreU(hn::Mul(v, hn::LoadU(d, weight + i)), d, y + i);
  });
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                float* y) {
  const auto count = static_cast<float>(n);
  const float mean =
      lane_sum(n, [x](auto d, int64_t i, auto acc) { return hn::Add(acc, hn::LoadU(d, x + i)); }) /
      count;
  const float squares = lane_sum(n, [x, mean](auto d, int64_t i, auto acc) {
    const auto v = hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean));
    return hn::MulAdd(v, v, acc);
  });
  const float inverse = 1.0F / std::sqrt(squares / count + eps);
  simd::for_each_vector(n, [=](auto d, int64_t i) {
    const auto centred = hn::Sub(hn::LoadU(d, x + i), hn::Set(d, mean));
    const auto v = hn::Mul(hn::Mul(centred, hn::Set(d, inverse)), hn::LoadU(d, weight + i));
    hn::StoreU(bias == nullptr ? v : hn::Add(v, hn::LoadU(d, bias + i)), d, y + i);
  });
}

float dot(const float* a, const float* b, int64_t n) {
  return lane_sum(n, [a, b](auto d, int64_t i, auto acc) {
    return hn::MulAdd(hn::LoadU(d, a + i), hn::LoadU(d, b + i), acc);
  });
}

void softmax(float* x, int64_t n) {
  const float most = simd::max_of(x, n);
  simd::for_each_vector(n, [=](auto d, int64_t i) {
    hn::StoreU(simd::fast_exp(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, most))), d, x + i);
  });
  const float total =
      lane_sum(n, [x](auto d, int64_t i, auto acc) { return hn::Add(acc, hn::LoadU(d, x + i)); });
  simd::for_each_vector(n, [=](auto d, int64_t i) {
    hn::StoreU(hn::Div(hn::LoadU(d, x + i), hn::Set(d, total)), d, x + i);
  });
}

void sigmoid(float* x, int64_t n) {
  simd::for_each_vector(
      n, [=](auto d, int64_t i) { hn::StoreU(simd::sigmoid(d, hn::LoadU(d, x + i)), d, x + i); });
}

void add_scaled(float a, const float* x, int64_t n, float* y) {
  simd::for_each_vector(n, [=](auto d, int64_t i) {
    hn::StoreU(hn::MulAdd(hn::Set(d, a), hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  });
}

void add(const float* b, int64_t n, float* x) {
  simd::for_each_vector(n, [=](auto d, int64_t i) {
    hn::StoreU(hn::Add(hn::LoadU(d, x + i), hn::LoadU(d, b + i)), d, x + i);
  });
}

void scale(float a, int64_t n, float* x) {
  simd::for_each_vector(n, [=](auto d, int64_t i) {
    hn::StoreU(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, a)), d, x + i);
  });
}

void clamp(float limit, int64_t n, float* x) {
  simd::for_each_vector(n, [=](auto d, int64_t i) {
    const auto most = hn::Set(d, limit);
    hn::StoreU(hn::Min(most, hn::Max(hn::Neg(most), hn::LoadU(d, x + i))), d, x + i);
  });
}

void rotate_halves(const float* cosine, const float* sine, int64_t n, float* x) {
  const int64_t half = n / 2;
  simd::for_each_vector(half, [=](auto d, int64_t i) {
    const auto a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + half + i);
    const auto c = hn::LoadU(d, cosine + i), s = hn::LoadU(d, sine + i);
    hn::StoreU(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, x + i);
    hn::StoreU(hn::MulAdd(a, s, hn::Mul(b, c)), d, x + half + i);
  });
}

void rotate_neighbours(const float* cosine, const float* sine, int64_t n, float* x) {
  simd::for_each_vector(n / 2, [=](auto d, int64_t i) {
    auto a = hn::Zero(d), b = hn::Zero(d);
    hn::LoadInterleaved2(d, x + 2 * i, a, b);
    const auto c = hn::LoadU(d, cosine + i), s = hn::LoadU(d, sine + i);
    hn::StoreInterleaved2(hn::NegMulAdd(b, s, hn::Mul(a, c)), hn::MulAdd(a, s, hn::Mul(b, c)), d,
                          x + 2 * i);
  });
}

}  // namespace cadre::engine::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::engine {

HWY_EXPORT(rms_norm);
HWY_EXPORT(layer_norm);
HWY_EXPORT(dot);
HWY_EXPORT(softmax);
HWY_EXPORT(sigmoid);
HWY_EXPORT(add_scaled);
HWY_EXPORT(add);
HWY_EXPORT(scale);
HWY_EXPORT(clamp);
HWY_EXPORT(rotate_halves);
HWY_EXPORT(rotate_neighbours);

void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(rms_norm)(x, weight, eps, n, y);
}
void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                float* y) {
  HWY_DYNAMIC_DISPATCH(layer_norm)(x, weight, bias, eps, n, y);
}
float dot(const float* a, const float* b, int64_t n) { return HWY_DYNAMIC_DISPATCH(dot)(a, b, n); }
void softmax(float* x, int64_t n) { HWY_DYNAMIC_DISPATCH(softmax)(x, n); }
void sigmoid(float* x, int64_t n) { HWY_DYNAMIC_DISPATCH(sigmoid)(x, n); }
void add_scaled(float a, const float* x, int64_t n, float* y) {
  HWY_DYNAMIC_DISPATCH(add_scaled)(a, x, n, y);
}
void add(const float* b, int64_t n, float* x) { HWY_DYNAMIC_DISPATCH(add)(b, n, x); }
void scale(float a, int64_t n, float* x) { HWY_DYNAMIC_DISPATCH(scale)(a, n, x); }
void clamp(float limit, int64_t n, float* x) { HWY_DYNAMIC_DISPATCH(clamp)(limit, n, x); }
void rotate_halves(const float* cosine, const float* sine, int64_t n, float* x) {
  HWY_DYNAMIC_DISPATCH(rotate_halves)(cosine, sine, n, x);
}
void rotate_neighbours(const float* cosine, const float* sine, int64_t n, float* x) {
  HWY_DYNAMIC_DISPATCH(rotate_neighbours)(cosine, sine, n, x);
}

bool all_finite(const float* x, int64_t n) {
  uint32_t most = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(x[i]) & 0x7fffffffU;
    most = magnitude > most ? magnitude : most;
  }
  return most < 0x7f800000U;
}

void to_bf16(const float* x, int64_t n, int64_t stride, uint16_t* y) {
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(x[i]);
    const bool nan = (bits & 0x7fffffffU) > 0x7f800000U;
    const uint32_t rounded = nan ? bits | 0x400000U : bits + 0x7fffU + ((bits >> 16) & 1);
    y[i * stride] = static_cast<uint16_t>(rounded >> 16);
  }
}

float to_q8(const float* x, int64_t n, int64_t stride, int8_t* y) {
  constexpr float kMost = 127;
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(x[i]));
  const bool finite = all_finite(x, n);
  const float inverse = finite && most > 0 ? kMost / most : 0.0F;
  for (int64_t i = 0; i < n; ++i) {
    const float scaled = finite ? std::clamp(x[i] * inverse, -kMost, kMost) : 0.0F;
    y[i * stride] = static_cast<int8_t>(scaled + std::copysign(0.5F, scaled));
  }
  return finite ? most / kMost : std::numeric_limits<float>::quiet_NaN();
}

}  // namespace cadre::engine
#endif
