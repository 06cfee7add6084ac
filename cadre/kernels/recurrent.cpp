#include "cadre/kernels/recurrent.h"

#include "cadre/base/parallel.h"
#include "cadre/kernels/partition.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/recurrent.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

/// tanh(u) = 2 sigmoid(2 u) - 1.
template <class D, class V>
HWY_INLINE V tanh_of(D d, V u) {
  const auto two = hn::Set(d, 2.0f);
  return hn::MulSub(two, sigmoid(d, hn::Mul(two, u)), hn::Set(d, 1.0f));
}

void gru_range(const float* x, const float* h, const float* state, int64_t begin, int64_t end,
               int64_t n, float* next) {
  for (int64_t row = begin; row < end; ++row) {
    const float* xs = x + row * 3 * n;
    const float* hs = h + row * 3 * n;
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto s = sigmoid(d, hn::Add(hn::LoadU(d, xs + i), hn::LoadU(d, hs + i)));
      const auto z = sigmoid(d, hn::Add(hn::LoadU(d, xs + n + i), hn::LoadU(d, hs + n + i)));
      const auto candidate = hn::LoadU(d, hs + 2 * n + i);
      const auto q = tanh_of(d, hn::MulAdd(s, candidate, hn::LoadU(d, xs + 2 * n + i)));
      const auto old = hn::LoadU(d, state + row * n + i);
      hn::StoreU(hn::MulAdd(z, hn::Sub(old, q), q), d, next + row * n + i);
    });
  }
}

void gru_backward_range(const float* x, const float* h, const float* state, const float* dnext,
                        int64_t begin, int64_t end, int64_t n, float* dx, float* dh,
                        float* dstate) {
  for (int64_t row = begin; row < end; ++row) {
    const int64_t at = row * 3 * n;
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto one = hn::Set(d, 1.0f);
      const auto load = [&](const float* from, int64_t gate)
                            HWY_ATTR { return hn::LoadU(d, from + at + gate * n + i); };
      const auto s = sigmoid(d, hn::Add(load(x, 0), load(h, 0)));
      const auto z = sigmoid(d, hn::Add(load(x, 1), load(h, 1)));
      const auto q = tanh_of(d, hn::MulAdd(s, load(h, 2), load(x, 2)));
      const auto grad = hn::LoadU(d, dnext + row * n + i);
      const auto old = hn::LoadU(d, state + row * n + i);
      const auto dq = hn::Mul(hn::Mul(grad, hn::Sub(one, z)), hn::NegMulAdd(q, q, one));
      const auto dz = hn::Mul(hn::Mul(grad, hn::Sub(old, q)), hn::Mul(z, hn::Sub(one, z)));
      const auto ds = hn::Mul(hn::Mul(dq, load(h, 2)), hn::Mul(s, hn::Sub(one, s)));
      hn::StoreU(ds, d, dx + at + i);
      hn::StoreU(ds, d, dh + at + i);
      hn::StoreU(dz, d, dx + at + n + i);
      hn::StoreU(dz, d, dh + at + n + i);
      hn::StoreU(dq, d, dx + at + 2 * n + i);
      hn::StoreU(hn::Mul(dq, s), d, dh + at + 2 * n + i);
      hn::StoreU(hn::Mul(grad, z), d, dstate + row * n + i);
    });
  }
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(gru_range);
HWY_EXPORT(gru_backward_range);

void gru(const float* x, const float* h, const float* state, int64_t rows, int64_t n, float* next) {
  parallel_for(rows, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gru_range)(x, h, state, begin, end, n, next);
  });
}

void gru_backward(const float* x, const float* h, const float* state, const float* dnext,
                  int64_t rows, int64_t n, float* dx, float* dh, float* dstate) {
  parallel_for(rows, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gru_backward_range)
    (x, h, state, dnext, begin, end, n, dx, dh, dstate);
  });
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
