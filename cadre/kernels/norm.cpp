#include "cadre/kernels/norm.h"

#include <algorithm>
#include <cmath>

#include "cadre/base/parallel.h"
#include "cadre/kernels/partition.h"
#include "cadre/kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/norm.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

HWY_INLINE float dot(const float* a, const float* b, int64_t n) {
  return sum_over(n, [&](auto d, int64_t i)
                         HWY_ATTR { return hn::Mul(hn::LoadU(d, a + i), hn::LoadU(d, b + i)); });
}

void rms_norm_range(const float* x, const float* weight, float eps, int64_t begin, int64_t end,
                    int64_t n, float* y, float* inverse_rms) {
  for (int64_t row = begin; row < end; ++row) {
    const float* in = x + row * n;
    const float inverse = 1.0f / std::sqrt(dot(in, in, n) / static_cast<float>(n) + eps);
    inverse_rms[row] = inverse;
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto scaled = hn::Mul(hn::LoadU(d, in + i), hn::Set(d, inverse));
      hn::StoreU(hn::Mul(scaled, hn::LoadU(d, weight + i)), d, y + row * n + i);
    });
  }
}

/// Rows [begin, end); adds their share of the weight gradient to `dweight`.
void rms_norm_backward_range(const float* x, const float* weight, const float* inverse_rms,
                             const float* dy, int64_t begin, int64_t end, int64_t n, float* dx,
                             float* dweight) {
  for (int64_t row = begin; row < end; ++row) {
    const float* in = x + row * n;
    const float* grad = dy + row * n;
    const float inverse = inverse_rms[row];
    const float along = sum_over(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto weighted = hn::Mul(hn::LoadU(d, grad + i), hn::LoadU(d, weight + i));
      return hn::Mul(weighted, hn::LoadU(d, in + i));
    });
    const float back = along * inverse * inverse * inverse / static_cast<float>(n);
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto x_i = hn::LoadU(d, in + i);
      const auto dy_i = hn::Mul(hn::LoadU(d, grad + i), hn::Set(d, inverse));
      const auto straight = hn::Mul(dy_i, hn::LoadU(d, weight + i));
      hn::StoreU(hn::NegMulAdd(x_i, hn::Set(d, back), straight), d, dx + row * n + i);
      hn::StoreU(hn::MulAdd(dy_i, x_i, hn::LoadU(d, dweight + i)), d, dweight + i);
    });
  }
}

void layer_norm_range(const float* x, const float* weight, const float* bias, float eps,
                      int64_t begin, int64_t end, int64_t n, float* y, float* mean,
                      float* inverse_std) {
  for (int64_t row = begin; row < end; ++row) {
    const float* in = x + row * n;
    const float centre =
        sum_over(n, [&](auto d, int64_t i) HWY_ATTR { return hn::LoadU(d, in + i); }) /
        static_cast<float>(n);
    const float squares = sum_over(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto centred = hn::Sub(hn::LoadU(d, in + i), hn::Set(d, centre));
      return hn::Mul(centred, centred);
    });
    const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(n) + eps);
    mean[row] = centre;
    inverse_std[row] = inverse;
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto centred = hn::Sub(hn::LoadU(d, in + i), hn::Set(d, centre));
      const auto scaled = hn::Mul(centred, hn::Set(d, inverse));
      const auto out = hn::MulAdd(scaled, hn::LoadU(d, weight + i), hn::LoadU(d, bias + i));
      hn::StoreU(out, d, y + row * n + i);
    });
  }
}

/// Rows [begin, end); adds their share of the gradients to `dweight` and `dbias`.
void layer_norm_backward_range(const float* x, const float* weight, const float* mean,
                               const float* inverse_std, const float* dy, int64_t begin,
                               int64_t end, int64_t n, float* dx, float* dweight, float* dbias) {
  for (int64_t row = begin; row < end; ++row) {
    const float* in = x + row * n;
    const float* grad = dy + row * n;
    const float centre = mean[row];
    const float inverse = inverse_std[row];
    const float grad_mean = dot(grad, weight, n) / static_cast<float>(n);
    const float along = sum_over(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto weighted = hn::Mul(hn::LoadU(d, grad + i), hn::LoadU(d, weight + i));
      return hn::Mul(weighted, hn::Sub(hn::LoadU(d, in + i), hn::Set(d, centre)));
    });
    const float back = along * inverse / static_cast<float>(n);
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto centred = hn::Sub(hn::LoadU(d, in + i), hn::Set(d, centre));
      const auto unit = hn::Mul(centred, hn::Set(d, inverse));
      const auto dy_i = hn::LoadU(d, grad + i);
      const auto straight = hn::MulSub(dy_i, hn::LoadU(d, weight + i), hn::Set(d, grad_mean));
      const auto total = hn::NegMulAdd(unit, hn::Set(d, back), straight);
      hn::StoreU(hn::Mul(total, hn::Set(d, inverse)), d, dx + row * n + i);
      hn::StoreU(hn::MulAdd(dy_i, unit, hn::LoadU(d, dweight + i)), d, dweight + i);
      hn::StoreU(hn::Add(dy_i, hn::LoadU(d, dbias + i)), d, dbias + i);
    });
  }
}

/// total[n] = sum of partial[count, n] in order.
void add_partials(const float* partial, int64_t count, int64_t stride, int64_t n, float* total) {
  std::fill(total, total + n, 0.0f);
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto share = hn::LoadU(d, partial + chunk * stride + i);
      hn::StoreU(hn::Add(hn::LoadU(d, total + i), share), d, total + i);
    });
  }
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(rms_norm_range);
HWY_EXPORT(rms_norm_backward_range);
HWY_EXPORT(layer_norm_range);
HWY_EXPORT(layer_norm_backward_range);
HWY_EXPORT(add_partials);

void rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t n, float* y,
              float* inverse_rms) {
  parallel_for(rows, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(rms_norm_range)(x, weight, eps, begin, end, n, y, inverse_rms);
  });
}

void rms_norm_backward(const float* x, const float* weight, const float* inverse_rms,
                       const float* dy, int64_t rows, int64_t n, float* dx, float* dweight) {
  thread_local Scratch scratch;
  const RowChunks chunks(rows);
  float* partial = scratch.floats(chunks.count * n);
  parallel_tasks(chunks.count, [&](int64_t chunk) {
    float* share = partial + chunk * n;
    std::fill(share, share + n, 0.0f);
    HWY_DYNAMIC_DISPATCH(rms_norm_backward_range)
    (x, weight, inverse_rms, dy, chunks.begin(chunk), chunks.end(chunk), n, dx, share);
  });
  HWY_DYNAMIC_DISPATCH(add_partials)(partial, chunks.count, n, n, dweight);
}

void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t rows,
                int64_t n, float* y, float* mean, float* inverse_std) {
  parallel_for(rows, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(layer_norm_range)
    (x, weight, bias, eps, begin, end, n, y, mean, inverse_std);
  });
}

void layer_norm_backward(const float* x, const float* weight, const float* mean,
                         const float* inverse_std, const float* dy, int64_t rows, int64_t n,
                         float* dx, float* dweight, float* dbias) {
  thread_local Scratch scratch;
  const RowChunks chunks(rows);
  float* partial = scratch.floats(chunks.count * 2 * n);
  parallel_tasks(chunks.count, [&](int64_t chunk) {
    float* share = partial + chunk * 2 * n;
    std::fill(share, share + 2 * n, 0.0f);
    HWY_DYNAMIC_DISPATCH(layer_norm_backward_range)
    (x, weight, mean, inverse_std, dy, chunks.begin(chunk), chunks.end(chunk), n, dx, share,
     share + n);
  });
  HWY_DYNAMIC_DISPATCH(add_partials)(partial, chunks.count, 2 * n, n, dweight);
  HWY_DYNAMIC_DISPATCH(add_partials)(partial + n, chunks.count, 2 * n, n, dbias);
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
