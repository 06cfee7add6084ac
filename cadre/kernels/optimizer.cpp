#include "cadre/kernels/optimizer.h"

#include <cmath>
#include <vector>

#include "cadre/base/parallel.h"
#include "cadre/kernels/partition.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/optimizer.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

void adamw_range(const AdamWStep& step, int64_t begin, int64_t end, float* parameter,
                 const float* grad, float* exp_avg, float* exp_avg_sq) {
  const double count = static_cast<double>(step.step);
  const double correction1 = 1 - std::pow(static_cast<double>(step.beta1), count);
  const double correction2 = 1 - std::pow(static_cast<double>(step.beta2), count);
  const float rate = static_cast<float>(step.lr / correction1);
  const float root = static_cast<float>(1 / std::sqrt(correction2));
  const float keep = 1 - step.lr * step.weight_decay;
  for_each_vector(end - begin, [&](auto d, int64_t i) HWY_ATTR {
    const int64_t at = begin + i;
    const auto g = hn::Mul(hn::LoadU(d, grad + at), hn::Set(d, step.grad_scale));
    const auto m = hn::MulAdd(hn::LoadU(d, exp_avg + at), hn::Set(d, step.beta1),
                              hn::Mul(g, hn::Set(d, 1 - step.beta1)));
    const auto v = hn::MulAdd(hn::LoadU(d, exp_avg_sq + at), hn::Set(d, step.beta2),
                              hn::Mul(hn::Mul(g, g), hn::Set(d, 1 - step.beta2)));
    const auto size = hn::MulAdd(hn::Sqrt(v), hn::Set(d, root), hn::Set(d, step.eps));
    const auto decayed = hn::Mul(hn::LoadU(d, parameter + at), hn::Set(d, keep));
    hn::StoreU(hn::NegMulAdd(hn::Div(m, size), hn::Set(d, rate), decayed), d, parameter + at);
    hn::StoreU(m, d, exp_avg + at);
    hn::StoreU(v, d, exp_avg_sq + at);
  });
}

double sum_of_squares_range(const float* x, int64_t n) {
  const hn::ScalableTag<double> d;
  const hn::Rebind<float, decltype(d)> narrow;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  auto even = hn::Zero(d);
  auto odd = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto a = hn::PromoteTo(d, hn::LoadU(narrow, x + i));
    const auto b = hn::PromoteTo(d, hn::LoadU(narrow, x + i + lanes));
    even = hn::MulAdd(a, a, even);
    odd = hn::MulAdd(b, b, odd);
  }
  double total = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  for (; i < n; ++i) total += static_cast<double>(x[i]) * x[i];
  return total;
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(adamw_range);
HWY_EXPORT(sum_of_squares_range);

void adamw(const AdamWStep& step, int64_t n, float* parameter, const float* grad, float* exp_avg,
           float* exp_avg_sq) {
  parallel_for(n, row_grain(1), [&](int64_t begin, int64_t end) {
    HWY_DYNAMIC_DISPATCH(adamw_range)(step, begin, end, parameter, grad, exp_avg, exp_avg_sq);
  });
}

double sum_of_squares(const float* x, int64_t n) {
  // Chunks of a fixed size, added in order: the same bits for any number of threads.
  constexpr int64_t kChunk = 1 << 16;
  std::vector<double> partial((n + kChunk - 1) / kChunk);
  parallel_tasks(static_cast<int64_t>(partial.size()), [&](int64_t chunk) {
    const int64_t begin = chunk * kChunk;
    partial[chunk] =
        HWY_DYNAMIC_DISPATCH(sum_of_squares_range)(x + begin, std::min(kChunk, n - begin));
  });
  double total = 0;
  for (const double share : partial) total += share;
  return total;
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
