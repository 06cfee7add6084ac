#pragma once

/// Two stochastic passes over one batch shall predict alike (Zuo et al., "Taming Sparsely Activated
/// Transformer with Stochastic Experts", 2022, THOR, eq. 4; Wu et al., "R-Drop", 2021):
///   L = CE(y, p1) + CE(y, p2) + a * (KL(p1 || p2) + KL(p2 || p1)) / 2,  p_i = softmax(z_i).
/// Gradients flow through both. Each term is a mean over the same rows, so that a does not change
/// its meaning with the shape of a batch.

#include <torch/torch.h>

namespace cadre {

/// Mean over rows of (KL(p1 || p2) + KL(p2 || p1)) / 2 = sum_v (p1 - p2)(log p1 - log p2) / 2, from
/// log-softmax in fp32: a probability that underflows costs no NaN. logits [..., V]; `counted`
/// [...] bool leaves rows out (padding); undefined = all. 0 without rows. Throws UsageError when
/// shapes differ.
torch::Tensor symmetric_kl(const torch::Tensor& logits_a, const torch::Tensor& logits_b,
                           const torch::Tensor& counted = {});

struct Consistency {
  double coefficient = 5.0;  ///< a: 5 in the released script, 1 its flag's default
};

/// L of logits [..., V] and targets [...] int64; target -100 = not counted, by any term.
torch::Tensor consistency_loss(const torch::Tensor& logits_a, const torch::Tensor& logits_b,
                               const torch::Tensor& targets, const Consistency& options = {});

struct ConsistencyParts {
  torch::Tensor total;       ///< L, a scalar
  double cross_entropy = 0;  ///< mean of the two passes, nats a counted token
  double divergence = 0;     ///< symmetric_kl, without its coefficient
};

/// L of a language model's two passes, chunk by chunk over tokens, so that logits [T, V] never
/// exist for the whole batch: a chunk's gradients are made while they are at hand. hidden_a and
/// hidden_b [..., D] and weight [V, D] fp32, differentiable; targets [...] int64. Throws UsageError
/// for shapes that do not fit.
ConsistencyParts chunked_consistency(const torch::Tensor& hidden_a, const torch::Tensor& hidden_b,
                                     const torch::Tensor& weight, const torch::Tensor& targets,
                                     const Consistency& options = {}, int64_t chunk = 512);

}  // namespace cadre
