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

}  // namespace cadre
