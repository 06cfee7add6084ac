#pragma once

/// Dense blocks as sums of experts and back, exactly: W1 is cut by rows, W2 by columns, attention
/// by heads, as in tensor parallelism (Yang et al., "Union of Experts", 2025, equivalent
/// decomposition; Dai et al., "DeepSeekMoE", 2024, fine-grained segmentation):
///   sum_i act(W1_i x + b1_i) W2_i + b2 = act(W1 x + b1) W2 + b2.
/// Weights are copied, never computed: fuse(partition(x)) is x byte for byte. Undefined biases stay
/// undefined.

#include <torch/torch.h>

namespace cadre {

/// Parts of equal size, [n, R / n, ...] of [R, ...]; and back. Throws UsageError when n does not
/// divide.
torch::Tensor split_rows(const torch::Tensor& matrix, int64_t n);
torch::Tensor join_rows(const torch::Tensor& parts);
/// [n, R, C / n] of [R, C]; and back.
torch::Tensor split_columns(const torch::Tensor& matrix, int64_t n);
torch::Tensor join_columns(const torch::Tensor& parts);

/// down f(up x + up_bias) + down_bias.
struct DenseMlp {
  torch::Tensor up, up_bias;      ///< [H, D], [H]
  torch::Tensor down, down_bias;  ///< [D, H], [D]
};
/// One output bias, outside the sum: n of them would add up.
struct UnionMlp {
  torch::Tensor up, up_bias;      ///< [n, H / n, D], [n, H / n]
  torch::Tensor down, down_bias;  ///< [n, D, H / n], [D]
};
UnionMlp partition(const DenseMlp& dense, int64_t n);
DenseMlp fuse(const UnionMlp& parts);

/// down (silu(gate x) * (up x)); the parts are an ExpertLayer's gate_proj, up_proj, down_proj.
struct DenseSwiGlu {
  torch::Tensor gate, up;  ///< [H, D]
  torch::Tensor down;      ///< [D, H]
};
struct UnionSwiGlu {
  torch::Tensor gate, up;  ///< [n, H / n, D]
  torch::Tensor down;      ///< [n, D, H / n]
};
UnionSwiGlu partition(const DenseSwiGlu& dense, int64_t n);
DenseSwiGlu fuse(const UnionSwiGlu& parts);

/// Every expert cut in m: expert e becomes e m ... e m + m - 1 of a sixth, say, of its width
/// (DeepSeekMoE: choose m times as many of them). gate, up [E, H, D] <-> [E m, H / m, D], down
/// [E, D, H] <-> [E m, D, H / m].
UnionSwiGlu segment(const UnionSwiGlu& experts, int64_t m);
UnionSwiGlu unsegment(const UnionSwiGlu& parts, int64_t m);

/// Projections of an attention layer whose heads have their own keys and values.
struct DenseAttention {
  torch::Tensor q, k, v;  ///< [heads * dim, D]
  torch::Tensor o;        ///< [D, heads * dim]
};
/// Experts of `heads / n` heads each.
struct UnionAttention {
  torch::Tensor q, k, v;  ///< [n, heads / n * dim, D]
  torch::Tensor o;        ///< [n, D, heads / n * dim]
};
/// Throws UsageError when n does not divide the heads.
UnionAttention partition(const DenseAttention& dense, int64_t heads, int64_t n);
DenseAttention fuse(const UnionAttention& parts);

}  // namespace cadre
