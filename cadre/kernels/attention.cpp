#include "cadre/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cadre/base/parallel.h"
#include "cadre/kernels/gemm.h"
#include "cadre/kernels/kernel_timer.h"
#include "cadre/kernels/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/attention.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

/// Takes `seen` scores of one query into its running softmax: scores become e^(score - maximum),
/// those beyond `seen` up to `n` zero; `sum` and out [dim] are brought down to the new maximum.
void take_scores(float* scores, int64_t seen, int64_t n, float* maximum, float* sum, float* out,
                 int64_t dim) {
  const float before = *maximum;
  const float largest = std::max(before, max_of(scores, seen));
  std::fill(scores + seen, scores + n, 0.0f);
  const float shift = std::isinf(largest) && largest < 0 ? 0.0f : largest;
  const float share = sum_over(seen, [&](auto d, int64_t i) HWY_ATTR {
    const auto e = fast_exp(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, shift)));
    hn::StoreU(e, d, scores + i);
    return e;
  });
  if (*sum != 0 && largest != before) {
    const float factor = std::exp(before - shift);
    *sum *= factor;
    for_each_vector(dim, [&](auto d, int64_t i) HWY_ATTR {
      hn::StoreU(hn::Mul(hn::LoadU(d, out + i), hn::Set(d, factor)), d, out + i);
    });
  }
  *maximum = largest;
  *sum += share;
}

void scale_out(float* out, float factor, int64_t dim) {
  for_each_vector(dim, [&](auto d, int64_t i) HWY_ATTR {
    hn::StoreU(hn::Mul(hn::LoadU(d, out + i), hn::Set(d, factor)), d, out + i);
  });
}

float dot_out(const float* a, const float* b, int64_t dim) {
  return sum_over(dim, [&](auto d, int64_t i)
                           HWY_ATTR { return hn::Mul(hn::LoadU(d, a + i), hn::LoadU(d, b + i)); });
}

/// scores become the probabilities p = e^(score - lse), dscores (holding <dout, v>) become
/// p (dscores - delta); both zero from `seen` to `n`. A lse of -inf says that all scores are -inf.
void score_gradients(float* scores, float* dscores, int64_t seen, int64_t n, float lse,
                     float delta) {
  if (std::isinf(lse) && lse < 0) seen = 0;
  for_each_vector(seen, [&](auto d, int64_t i) HWY_ATTR {
    const auto p = fast_exp(d, hn::Sub(hn::LoadU(d, scores + i), hn::Set(d, lse)));
    const auto centred = hn::Sub(hn::LoadU(d, dscores + i), hn::Set(d, delta));
    hn::StoreU(p, d, scores + i);
    hn::StoreU(hn::Mul(p, centred), d, dscores + i);
  });
  std::fill(scores + seen, scores + n, 0.0f);
  std::fill(dscores + seen, dscores + n, 0.0f);
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(take_scores);
HWY_EXPORT(scale_out);
HWY_EXPORT(dot_out);
HWY_EXPORT(score_gradients);

namespace {

/// A block of scores (64 x 512 floats, 128 KB) stays in the second cache between its two products.
/// With 128 queries the products are 3 % faster, but more of them lies above the diagonal: slower
/// up to length 512.
constexpr int64_t kQueryBlock = 64;
constexpr int64_t kKeyBlock = 512;

/// One head of one batch entry: where its rows start and how far apart they lie.
struct Head {
  const AttentionShape& shape;
  int64_t batch, head;

  int64_t out_stride() const { return shape.heads * shape.dim; }
  int64_t q() const { return batch * shape.length * shape.q_stride + head * shape.dim; }
  int64_t k() const { return batch * shape.key_length * shape.k_stride + kv_head() * shape.dim; }
  int64_t v() const { return batch * shape.key_length * shape.v_stride + kv_head() * shape.dim; }
  int64_t out() const { return batch * shape.length * out_stride() + head * shape.dim; }
  int64_t lse() const { return (batch * shape.heads + head) * shape.length; }
  int64_t kv_head() const { return head / (shape.heads / shape.kv_heads); }

  /// How many keys query i sees.
  int64_t seen(int64_t i) const {
    if (shape.mask == Mask::kNone) return shape.key_length;
    return std::clamp<int64_t>(shape.key_length - shape.length + i + 1, 0, shape.key_length);
  }
};

/// Queries [first, first + count) of a head.
void attend(const Head& head, int64_t first, int64_t count, const float* q, const float* k,
            const float* v, float* out, float* lse) {
  thread_local Scratch scratch;
  const AttentionShape& shape = head.shape;
  float* scores = scratch.floats(kQueryBlock * (kKeyBlock + 2));
  float* maxima = scores + kQueryBlock * kKeyBlock;
  float* sums = maxima + kQueryBlock;
  std::fill(maxima, maxima + count, -std::numeric_limits<float>::infinity());
  std::fill(sums, sums + count, 0.0f);
  const int64_t out_stride = head.out_stride();
  float* out_rows = out + head.out() + first * out_stride;
  const float* q_rows = q + head.q() + first * shape.q_stride;
  const int64_t keys = head.seen(first + count - 1);
  for (int64_t key = 0; key < keys; key += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, keys - key);
    gemm(Op::kNone, Op::kTranspose, count, n, shape.dim, shape.scale, q_rows, shape.q_stride,
         k + head.k() + key * shape.k_stride, shape.k_stride, 0, scores, n);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t seen = std::clamp<int64_t>(head.seen(first + i) - key, 0, n);
      HWY_DYNAMIC_DISPATCH(take_scores)
      (scores + i * n, seen, n, maxima + i, sums + i, out_rows + i * out_stride, shape.dim);
    }
    gemm(Op::kNone, Op::kNone, count, shape.dim, n, 1, scores, n,
         v + head.v() + key * shape.v_stride, shape.v_stride, key == 0 ? 0.0f : 1.0f, out_rows,
         out_stride);
  }
  for (int64_t i = 0; i < count; ++i) {
    float* row = out_rows + i * out_stride;
    if (keys == 0) std::fill(row, row + shape.dim, 0.0f);
    if (sums[i] != 0) HWY_DYNAMIC_DISPATCH(scale_out)(row, 1 / sums[i], shape.dim);
    if (lse != nullptr) lse[head.lse() + first + i] = maxima[i] + std::log(sums[i]);
  }
}

/// Everything backward reads and writes.
struct Gradients {
  const float *q, *k, *v, *out, *lse, *dout;
  float *dq, *dk, *dv;
};

/// Backward of queries [first, first + count) of a head: writes their dq, adds to dk and dv.
void attend_backward(const Head& head, int64_t first, int64_t count, const Gradients& g) {
  thread_local Scratch scratch;
  const AttentionShape& shape = head.shape;
  float* scores = scratch.floats(kQueryBlock * (2 * kKeyBlock + 1));
  float* dscores = scores + kQueryBlock * kKeyBlock;
  float* delta = dscores + kQueryBlock * kKeyBlock;
  const int64_t out_stride = head.out_stride();
  const int64_t out_at = head.out() + first * out_stride;
  const int64_t q_at = head.q() + first * shape.q_stride;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t at = out_at + i * out_stride;
    delta[i] = HWY_DYNAMIC_DISPATCH(dot_out)(g.out + at, g.dout + at, shape.dim);
  }
  const int64_t keys = head.seen(first + count - 1);
  for (int64_t key = 0; key < keys; key += kKeyBlock) {
    const int64_t n = std::min(kKeyBlock, keys - key);
    const int64_t k_at = head.k() + key * shape.k_stride;
    const int64_t v_at = head.v() + key * shape.v_stride;
    gemm(Op::kNone, Op::kTranspose, count, n, shape.dim, shape.scale, g.q + q_at, shape.q_stride,
         g.k + k_at, shape.k_stride, 0, scores, n);
    gemm(Op::kNone, Op::kTranspose, count, n, shape.dim, 1, g.dout + out_at, out_stride, g.v + v_at,
         shape.v_stride, 0, dscores, n);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t seen = std::clamp<int64_t>(head.seen(first + i) - key, 0, n);
      HWY_DYNAMIC_DISPATCH(score_gradients)
      (scores + i * n, dscores + i * n, seen, n, g.lse[head.lse() + first + i], delta[i]);
    }
    gemm(Op::kTranspose, Op::kNone, n, shape.dim, count, 1, scores, n, g.dout + out_at, out_stride,
         1, g.dv + v_at, shape.v_stride);
    gemm(Op::kTranspose, Op::kNone, n, shape.dim, count, shape.scale, dscores, n, g.q + q_at,
         shape.q_stride, 1, g.dk + k_at, shape.k_stride);
    gemm(Op::kNone, Op::kNone, count, shape.dim, n, shape.scale, dscores, n, g.k + k_at,
         shape.k_stride, key == 0 ? 0.0f : 1.0f, g.dq + q_at, shape.q_stride);
  }
}

void clear_rows(float* x, int64_t rows, int64_t stride, int64_t dim) {
  for (int64_t i = 0; i < rows; ++i) std::fill(x + i * stride, x + i * stride + dim, 0.0f);
}

}  // namespace

void attention(const AttentionShape& shape, const float* q, const float* k, const float* v,
               float* out, float* lse) {
  static Profile::Section& section = Profile::global().section("attention");
  const KernelTimer timer(section);
  const int64_t blocks = (shape.length + kQueryBlock - 1) / kQueryBlock;
  parallel_tasks(shape.batch * shape.heads * blocks, [&](int64_t task) {
    const int64_t head = task / blocks;
    // The last queries see the most keys: largest first.
    const int64_t first = (blocks - 1 - task % blocks) * kQueryBlock;
    attend({shape, head / shape.heads, head % shape.heads}, first,
           std::min(kQueryBlock, shape.length - first), q, k, v, out, lse);
  });
}

void attention_backward(const AttentionShape& shape, const float* q, const float* k, const float* v,
                        const float* out, const float* lse, const float* dout, float* dq, float* dk,
                        float* dv) {
  static Profile::Section& section = Profile::global().section("attention_backward");
  const KernelTimer timer(section);
  const Gradients gradients{q, k, v, out, lse, dout, dq, dk, dv};
  const int64_t group = shape.heads / shape.kv_heads;
  // One task owns a key head's dk and dv: its query heads and blocks follow each other in fixed
  // order.
  parallel_tasks(shape.batch * shape.kv_heads, [&](int64_t task) {
    const int64_t batch = task / shape.kv_heads;
    const int64_t first_head = task % shape.kv_heads * group;
    const Head shared{shape, batch, first_head};
    clear_rows(dk + shared.k(), shape.key_length, shape.k_stride, shape.dim);
    clear_rows(dv + shared.v(), shape.key_length, shape.v_stride, shape.dim);
    for (int64_t i = 0; i < group; ++i) {
      const Head head{shape, batch, first_head + i};
      clear_rows(dq + head.q(), shape.length, shape.q_stride, shape.dim);
      for (int64_t first = 0; first < shape.length; first += kQueryBlock) {
        attend_backward(head, first, std::min(kQueryBlock, shape.length - first), gradients);
      }
    }
  });
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
