#include "cadre/kernels/activation.h"

#include "cadre/base/parallel.h"
#include "cadre/kernels/partition.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/activation.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

void silu_mul_range(const float* gate_up, int64_t begin, int64_t end, int64_t n, float* y) {
  for (int64_t row = begin; row < end; ++row) {
    const float* gates = gate_up + row * 2 * n;
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto gate = hn::LoadU(d, gates + i);
      const auto up = hn::LoadU(d, gates + n + i);
      hn::StoreU(hn::Mul(hn::Mul(gate, sigmoid(d, gate)), up), d, y + row * n + i);
    });
  }
}

/// With s = sigmoid(g): d(g s) / dg = s (1 + g (1 - s)).
void silu_mul_backward_range(const float* gate_up, const float* dy, int64_t begin, int64_t end,
                             int64_t n, float* dgate_up) {
  for (int64_t row = begin; row < end; ++row) {
    const float* gates = gate_up + row * 2 * n;
    float* dgates = dgate_up + row * 2 * n;
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto one = hn::Set(d, 1.0f);
      const auto gate = hn::LoadU(d, gates + i);
      const auto up = hn::LoadU(d, gates + n + i);
      const auto grad = hn::LoadU(d, dy + row * n + i);
      const auto s = sigmoid(d, gate);
      const auto slope = hn::Mul(s, hn::MulAdd(gate, hn::Sub(one, s), one));
      hn::StoreU(hn::Mul(grad, hn::Mul(up, slope)), d, dgates + i);
      hn::StoreU(hn::Mul(grad, hn::Mul(gate, s)), d, dgates + n + i);
    });
  }
}

constexpr float kGeluScale = 1.5957691216f;  // 2 sqrt(2 / pi): 0.5 (1 + tanh u) = sigmoid(2 u)
constexpr float kGeluCubic = 0.044715f;

void gelu_range(const float* x, int64_t begin, int64_t end, float* y) {
  for_each_vector(end - begin, [&](auto d, int64_t i) HWY_ATTR {
    const auto v = hn::LoadU(d, x + begin + i);
    const auto cubic = hn::MulAdd(hn::Mul(v, v), hn::Set(d, kGeluCubic), hn::Set(d, 1.0f));
    const auto s = sigmoid(d, hn::Mul(hn::Mul(v, hn::Set(d, kGeluScale)), cubic));
    hn::StoreU(hn::Mul(v, s), d, y + begin + i);
  });
}

void gelu_backward_range(const float* x, const float* dy, int64_t begin, int64_t end, float* dx) {
  for_each_vector(end - begin, [&](auto d, int64_t i) HWY_ATTR {
    const auto one = hn::Set(d, 1.0f);
    const auto v = hn::LoadU(d, x + begin + i);
    const auto square = hn::Mul(v, v);
    const auto linear = hn::Mul(v, hn::Set(d, kGeluScale));
    const auto s = sigmoid(d, hn::Mul(linear, hn::MulAdd(square, hn::Set(d, kGeluCubic), one)));
    const auto inner = hn::MulAdd(square, hn::Set(d, 3 * kGeluCubic), one);
    const auto slope = hn::Mul(hn::Mul(linear, inner), hn::Mul(s, hn::Sub(one, s)));
    const auto grad = hn::LoadU(d, dy + begin + i);
    hn::StoreU(hn::Mul(grad, hn::Add(s, slope)), d, dx + begin + i);
  });
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(silu_mul_range);
HWY_EXPORT(silu_mul_backward_range);
HWY_EXPORT(gelu_range);
HWY_EXPORT(gelu_backward_range);

void silu_mul(const float* gate_up, int64_t rows, int64_t n, float* y) {
  parallel_for(rows, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(silu_mul_range)(gate_up, begin, end, n, y);
  });
}

void silu_mul_backward(const float* gate_up, const float* dy, int64_t rows, int64_t n,
                       float* dgate_up) {
  parallel_for(rows, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(silu_mul_backward_range)(gate_up, dy, begin, end, n, dgate_up);
  });
}

void gelu(const float* x, int64_t n, float* y) {
  parallel_for(n, row_grain(1), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gelu_range)(x, begin, end, y);
  });
}

void gelu_backward(const float* x, const float* dy, int64_t n, float* dx) {
  parallel_for(n, row_grain(1), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(gelu_backward_range)(x, dy, begin, end, dx);
  });
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
