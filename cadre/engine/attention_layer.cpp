#include "cadre/engine/attention_layer.h"

#include <algorithm>
#include <array>

#include "cadre/engine/vector_math.h"

namespace cadre::engine {
namespace {

/// Tokens from which on their own threads pay for norms and rotations.
constexpr int64_t kTokenGrain = 4;

void grow(std::vector<float>& numbers, int64_t size) {
  if (numbers.size() < static_cast<size_t>(size)) numbers.resize(static_cast<size_t>(size));
}

void normalize_heads(const std::vector<float>& weight, QkNorm kind, float eps, int64_t heads,
                     int64_t width, float* x) {
  if (kind == QkNorm::kFullWidth) rms_norm(x, weight.data(), eps, heads * width, x);
  if (kind != QkNorm::kPerHead) return;
  for (int64_t h = 0; h < heads; ++h) {
    rms_norm(x + h * width, weight.data(), eps, width, x + h * width);
  }
}

}  // namespace

void AttentionLayer::run(int64_t layer, const LayerWeights& weights, const Activations& x,
                         const Batch& batch, Activations& out) {
  out.resize(batch.tokens, spec_.heads * spec_.value_width);
  if (spec_.latent.kv_rank > 0) {
    run_latent(layer, weights, x, batch, out);
  } else {
    run_plain(layer, weights, x, batch, out);
  }
  for_ranges(team_, batch.tokens, kTokenGrain,
             [&](int64_t begin, int64_t end) { out.quantize(begin, end); });
}

void AttentionLayer::run_plain(int64_t layer, const LayerWeights& weights, const Activations& x,
                               const Batch& batch, Activations& out) {
  const int64_t q = spec_.heads * spec_.key_width, k = spec_.kv_heads * spec_.key_width;
  const int64_t v = spec_.kv_heads * spec_.value_width;
  grow(q_, batch.tokens * q);
  grow(k_, batch.tokens * k);
  grow(v_, batch.tokens * v);
  const std::array<Product, 3> products = {{{&weights.q, &x, q_.data(), q},
                                            {&weights.k, &x, k_.data(), k},
                                            {&weights.v, &x, v_.data(), v}}};
  run_products(team_, products, batch.tokens);
  for_ranges(team_, batch.tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) prepare_plain(layer, weights, batch, row);
  });
  attend_batch(layer, weights, batch, out.row(0));
}

/// Clamps, normalises and rotates a token's query and key, and caches key and value.
void AttentionLayer::prepare_plain(int64_t layer, const LayerWeights& weights, const Batch& batch,
                                   int64_t row) {
  const int64_t width = spec_.key_width, value_width = spec_.value_width;
  float* q = q_.data() + row * spec_.heads * width;
  float* k = k_.data() + row * spec_.kv_heads * width;
  float* v = v_.data() + row * spec_.kv_heads * value_width;
  if (spec_.clamp_qkv > 0) {
    clamp(spec_.clamp_qkv, spec_.heads * width, q);
    clamp(spec_.clamp_qkv, spec_.kv_heads * width, k);
    clamp(spec_.clamp_qkv, spec_.kv_heads * value_width, v);
  }
  normalize_heads(weights.q_norm, spec_.qk_norm, spec_.norm_eps, spec_.heads, width, q);
  normalize_heads(weights.k_norm, spec_.qk_norm, spec_.norm_eps, spec_.kv_heads, width, k);
  const float* angles = angles_of(batch, row);
  if (!rope_.is_none()) {
    for (int64_t h = 0; h < spec_.heads; ++h) rope_.rotate(angles, q + h * width);
    for (int64_t h = 0; h < spec_.kv_heads; ++h) rope_.rotate(angles, k + h * width);
  }
  const int64_t position = batch.position(row), slot = position % kPageTokens;
  KvPage* page =
      batch.slice_of[static_cast<size_t>(row)]->cache->page(layer, position / kPageTokens);
  for (int64_t h = 0; h < spec_.kv_heads; ++h) {
    page->store(h, slot, k + h * width, v + h * value_width);
  }
}

void AttentionLayer::attend_batch(int64_t layer, const LayerWeights& weights, const Batch& batch,
                                  float* out) {
  const bool latent = spec_.latent.kv_rank > 0;
  const float* q = latent ? absorbed_.data() : q_.data();
  const int64_t q_stride = spec_.heads * spec_.cached_key_width();
  const int64_t out_stride = spec_.heads * spec_.cached_value_width();
  std::vector<AttentionSpan> spans;
  for (const BatchSlice& slice : batch.slices) {
    spans.push_back({slice.cache, slice.first_position, slice.tokens,
                     q + slice.first_row * q_stride, out + slice.first_row * out_stride});
  }
  attend(team_, spec_, layer, weights.sinks, spans);
}

void AttentionLayer::run_latent(int64_t layer, const LayerWeights& weights, const Activations& x,
                                const Batch& batch, Activations& out) {
  const LatentWeights& latent = weights.latent;
  const int64_t q = spec_.heads * spec_.key_width, q_rank = spec_.latent.q_rank;
  const int64_t kv = spec_.latent.kv_rank + spec_.latent.rope_width;
  grow(q_, batch.tokens * q);
  grow(k_, batch.tokens * kv);
  compressed_.resize(batch.tokens, q_rank);
  const Product kv_down = {&latent.kv_down, &x, k_.data(), kv};
  const Product first = q_rank > 0 ? Product{&latent.q_down, &x, compressed_.row(0), q_rank}
                                   : Product{&latent.q_up, &x, q_.data(), q};
  run_products(team_, std::array{first, kv_down}, batch.tokens);
  for_ranges(team_, batch.tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) cache_latent(layer, latent, batch, row);
    if (q_rank > 0) compressed_.quantize(begin, end);
  });
  if (q_rank > 0) {
    run_products(team_, std::array{Product{&latent.q_up, &compressed_, q_.data(), q}},
                 batch.tokens);
  }
  absorb(latent, batch);
  grow(sums_, batch.tokens * spec_.heads * spec_.latent.kv_rank);
  attend_batch(layer, weights, batch, sums_.data());
  expand(latent, batch, out);
}

/// Normalises what is compressed, rotates the key's common part, caches both.
void AttentionLayer::cache_latent(int64_t layer, const LatentWeights& weights, const Batch& batch,
                                  int64_t row) {
  const int64_t rank = spec_.latent.kv_rank, width = rank + spec_.latent.rope_width;
  float* latent = k_.data() + row * width;
  rms_norm(latent, weights.kv_norm.data(), spec_.norm_eps, rank, latent);
  rope_.rotate(angles_of(batch, row), latent + rank);
  if (spec_.latent.q_rank > 0) {
    float* q = compressed_.row(row);
    rms_norm(q, weights.q_norm.data(), spec_.norm_eps, spec_.latent.q_rank, q);
  }
  const int64_t position = batch.position(row), slot = position % kPageTokens;
  KvPage* page =
      batch.slice_of[static_cast<size_t>(row)]->cache->page(layer, position / kPageTokens);
  page->store(0, slot, latent, latent);
}

/// q's part without positions becomes a query of latents; the rotated part is copied behind it.
void AttentionLayer::absorb(const LatentWeights& weights, const Batch& batch) {
  const LatentSpec& latent = spec_.latent;
  const int64_t tokens = batch.tokens, width = latent.kv_rank + latent.rope_width;
  const int64_t stride = spec_.heads * width;
  unrotated_.resize(spec_.heads * tokens, latent.nope_width);
  grow(absorbed_, tokens * stride);
  for_each_item(team_, spec_.heads, [&](int64_t head) {
    float* out = absorbed_.data() + head * width;
    for (int64_t t = 0; t < tokens; ++t) {
      const float* q = q_.data() + (t * spec_.heads + head) * spec_.key_width;
      std::copy_n(q, latent.nope_width, unrotated_.row(head * tokens + t));
      float* rotated = out + t * stride + latent.kv_rank;
      std::copy_n(q + latent.nope_width, latent.rope_width, rotated);
      rope_.rotate(angles_of(batch, t), rotated);
    }
    unrotated_.quantize(head * tokens, (head + 1) * tokens);
    const kernels::PanelMatrix& up = weights.key_up[static_cast<size_t>(head)];
    kernels::panel_matmul(up, unrotated_.view(head * tokens), tokens, 0, panels_of(up), out,
                          stride);
  });
}

/// The weighted latents of each head become its values.
void AttentionLayer::expand(const LatentWeights& weights, const Batch& batch, Activations& out) {
  const int64_t tokens = batch.tokens, rank = spec_.latent.kv_rank;
  const int64_t width = spec_.latent.value_width, stride = spec_.heads * width;
  latent_.resize(spec_.heads * tokens, rank);
  for_each_item(team_, spec_.heads, [&](int64_t head) {
    for (int64_t t = 0; t < tokens; ++t) {
      std::copy_n(sums_.data() + (t * spec_.heads + head) * rank, rank,
                  latent_.row(head * tokens + t));
    }
    latent_.quantize(head * tokens, (head + 1) * tokens);
    const kernels::PanelMatrix& up = weights.value_up[static_cast<size_t>(head)];
    kernels::panel_matmul(up, latent_.view(head * tokens), tokens, 0, panels_of(up),
                          out.row(0) + head * width, stride);
  });
}

}  // namespace cadre::engine
