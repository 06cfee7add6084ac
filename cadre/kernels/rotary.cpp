#include "cadre/kernels/rotary.h"

#include "cadre/base/parallel.h"
#include "cadre/kernels/partition.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/rotary.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

void rotate_token(float* x, const float* cos, const float* sin, int64_t heads, int64_t half,
                  float sign) {
  for (int64_t head = 0; head < heads; ++head) {
    float* first = x + head * 2 * half;
    float* second = first + half;
    for_each_vector(half, [&](auto d, int64_t i) HWY_ATTR {
      const auto c = hn::LoadU(d, cos + i);
      const auto s = hn::Mul(hn::LoadU(d, sin + i), hn::Set(d, sign));
      const auto a = hn::LoadU(d, first + i);
      const auto b = hn::LoadU(d, second + i);
      hn::StoreU(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, first + i);
      hn::StoreU(hn::MulAdd(a, s, hn::Mul(b, c)), d, second + i);
    });
  }
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(rotate_token);

void rotary(float* x, const int64_t* positions, const float* cos, const float* sin, int64_t tokens,
            int64_t heads, int64_t dim, int64_t stride, float sign) {
  const int64_t half = dim / 2;
  parallel_for(tokens, row_grain(heads * dim), [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      const int64_t row = positions[token] * half;
      HWY_DYNAMIC_DISPATCH(rotate_token)
      (x + token * stride, cos + row, sin + row, heads, half, sign);
    }
  });
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
