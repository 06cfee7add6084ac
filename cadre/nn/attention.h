#pragma once

/// Grouped-query attention with rotary positions (Ainslie et al., "GQA", 2023; Su et al.,
/// "RoFormer", 2021).

#include <torch/torch.h>

#include <memory>

#include "cadre/kernels/attention.h"
#include "cadre/nn/linear.h"
#include "cadre/nn/norm.h"

namespace cadre {

/// cos and sin of position * theta^(-2i/dim), [max_positions, dim / 2], shared by all layers.
struct RotaryTable {
  RotaryTable(int64_t max_positions, int64_t dim, double theta = 10000.0);
  torch::Tensor cos, sin;
};

/// Rotates x [B, T, heads, dim] (halves convention); positions [B, T] or [T] int64. Differentiable.
/// Throws UsageError for a position outside the table.
torch::Tensor rotary(const torch::Tensor& x, const torch::Tensor& positions,
                     const RotaryTable& table);

/// softmax(q k^T / sqrt(dim)) v. q [B, T, heads, dim], k and v [B, S, kv_heads, dim]; returns [B,
/// T, heads, dim]. Differentiable; nothing of size T x S is stored. With Mask::kCausal, S >= T and
/// query i sits at S - T + i.
torch::Tensor scaled_dot_product_attention(const torch::Tensor& q, const torch::Tensor& k,
                                           const torch::Tensor& v, kernels::Mask mask);

/// Keys and values of the tokens seen so far by one attention layer, for generation (no gradients).
/// Memory grows by doubling, so that appending token after token copies each at most twice on
/// average.
class KeyValueCache {
 public:
  /// Tokens held.
  int64_t length() const { return length_; }
  /// Adds keys and values, both [B, T, kv_heads, dim]. Throws UsageError when they do not fit what
  /// is held.
  void append(const torch::Tensor& keys, const torch::Tensor& values);
  /// Forgets all tokens from `length` on (keeps the memory): another continuation of the same
  /// prompt.
  void truncate(int64_t length);
  /// Views [B, length, kv_heads, dim], good until the next append.
  torch::Tensor keys() const { return keys_.narrow(1, 0, length_); }
  torch::Tensor values() const { return values_.narrow(1, 0, length_); }

 private:
  void reserve(const torch::Tensor& like, int64_t length);

  torch::Tensor keys_, values_;  ///< [B, capacity, kv_heads, dim]
  int64_t length_ = 0;
};

struct AttentionOptions {
  int64_t hidden;
  int64_t heads;         ///< hidden and head_dim must fit: heads * head_dim is the projected width
  int64_t kv_heads = 0;  ///< 0 = heads; must divide heads
  int64_t head_dim = 0;  ///< 0 = hidden / heads
  kernels::Mask mask = kernels::Mask::kCausal;
  enum class QkNorm {
    kNone,
    kFullWidth,
    kPerHead
  } qk_norm = QkNorm::kNone;  ///< OLMoE: kFullWidth, Qwen3: kPerHead
  double norm_eps = 1e-6;
  double init_std = 0.02;
};

/// Modules: q_proj, k_proj, v_proj, o_proj, and q_norm, k_norm when asked for.
class AttentionImpl : public torch::nn::Module {
 public:
  /// `table` may be null: no rotary positions (encoders with learned positions). Throws UsageError
  /// when heads do not divide.
  AttentionImpl(const AttentionOptions& options, std::shared_ptr<const RotaryTable> table);

  /// hidden [B, T, D], positions [B, T] or [T] (unused without a table). With a cache (generation,
  /// no gradient), appends to it and attends to all of it.
  torch::Tensor forward(const torch::Tensor& hidden, const torch::Tensor& positions,
                        KeyValueCache* cache = nullptr);

  Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};
  RmsNorm q_norm{nullptr}, k_norm{nullptr};

 private:
  torch::Tensor attend(torch::Tensor q, torch::Tensor k, const torch::Tensor& v,
                       const torch::Tensor& positions, KeyValueCache* cache) const;

  AttentionOptions options_;
  std::shared_ptr<const RotaryTable> table_;
};
TORCH_MODULE(Attention);

}  // namespace cadre
