#include "cadre/kernels/softmax.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/kernels/partition.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/softmax.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

/// A log-sum-exp under way: sum of e^(x - shift), where shift is the largest x so far.
struct LogSum {
  float shift = -std::numeric_limits<float>::infinity();
  float sum = 0;

  float log() const { return sum == 0 ? shift : finite_shift() + std::log(sum); }
  /// x - shift stays defined (and e^x zero) when all of x is -inf.
  float finite_shift() const { return std::isinf(shift) && shift < 0 ? 0.0f : shift; }
};

HWY_INLINE float sum_exp(const float* x, int64_t n, float shift) {
  return sum_over(n, [&](auto d, int64_t i) HWY_ATTR {
    return fast_exp(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, shift)));
  });
}

/// One pass over memory: a block is read again for its exponentials while it is in the first cache.
HWY_INLINE LogSum log_sum(const float* x, int64_t n) {
  constexpr int64_t kBlock = 2048;
  LogSum total;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t count = std::min(kBlock, n - begin);
    const LogSum before = total;
    total.shift = std::max(before.shift, max_of(x + begin, count));
    const float shift = total.finite_shift();
    total.sum = before.sum * std::exp(before.shift - shift) + sum_exp(x + begin, count, shift);
  }
  return total;
}

/// y = e^(x - shift) * factor.
HWY_INLINE void scaled_exp(const float* x, int64_t n, float shift, float factor, float* y) {
  for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
    const auto e = fast_exp(d, hn::Sub(hn::LoadU(d, x + i), hn::Set(d, shift)));
    hn::StoreU(hn::Mul(e, hn::Set(d, factor)), d, y + i);
  });
}

void softmax_range(const float* x, int64_t begin, int64_t end, int64_t n, float* y) {
  for (int64_t row = begin; row < end; ++row) {
    const LogSum total = log_sum(x + row * n, n);
    const float factor = total.sum == 0 ? 0.0f : 1.0f / total.sum;
    scaled_exp(x + row * n, n, total.finite_shift(), factor, y + row * n);
  }
}

void softmax_backward_range(const float* y, const float* dy, int64_t begin, int64_t end, int64_t n,
                            float* dx) {
  for (int64_t row = begin; row < end; ++row) {
    const float* p = y + row * n;
    const float* dp = dy + row * n;
    const float dot = sum_over(n, [&](auto d, int64_t i) HWY_ATTR {
      return hn::Mul(hn::LoadU(d, p + i), hn::LoadU(d, dp + i));
    });
    for_each_vector(n, [&](auto d, int64_t i) HWY_ATTR {
      const auto centred = hn::Sub(hn::LoadU(d, dp + i), hn::Set(d, dot));
      hn::StoreU(hn::Mul(hn::LoadU(d, p + i), centred), d, dx + row * n + i);
    });
  }
}

void logsumexp_range(const float* x, int64_t begin, int64_t end, int64_t n, float* lse) {
  for (int64_t row = begin; row < end; ++row) lse[row] = log_sum(x + row * n, n).log();
}

/// Returns the loss of one row and leaves the gradient in its logits.
float cross_entropy_row(float* logits, int64_t target, int64_t classes, float scale) {
  const LogSum total = log_sum(logits, classes);
  const float loss = total.log() - logits[target];
  scaled_exp(logits, classes, total.finite_shift(), scale / total.sum, logits);
  logits[target] -= scale;
  return loss;
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(softmax_range);
HWY_EXPORT(softmax_backward_range);
HWY_EXPORT(logsumexp_range);
HWY_EXPORT(cross_entropy_row);

void softmax_rows(const float* x, int64_t rows, int64_t n, float* y) {
  parallel_for(rows, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(softmax_range)(x, begin, end, n, y);
  });
}

void softmax_rows_backward(const float* y, const float* dy, int64_t rows, int64_t n, float* dx) {
  parallel_for(rows, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(softmax_backward_range)(y, dy, begin, end, n, dx);
  });
}

void logsumexp_rows(const float* x, int64_t rows, int64_t n, float* lse) {
  parallel_for(rows, row_grain(n), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(logsumexp_range)(x, begin, end, n, lse);
  });
}

void cross_entropy(float* logits, const int64_t* targets, int64_t rows, int64_t classes,
                   float scale, float* loss) {
  constexpr int64_t kNoTarget = -100;
  parallel_for(rows, row_grain(classes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      float* row_logits = logits + row * classes;
      const int64_t target = targets[row];
      if (target == kNoTarget) {
        loss[row] = 0;
        std::fill(row_logits, row_logits + classes, 0.0f);
        continue;
      }
      if (target < 0 || target >= classes) {
        throw Error("cross_entropy: target {} of row {} is outside [0, {}); use {} for no target",
                    target, row, classes, kNoTarget);
      }
      loss[row] = HWY_DYNAMIC_DISPATCH(cross_entropy_row)(row_logits, target, classes, scale);
    }
  });
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
