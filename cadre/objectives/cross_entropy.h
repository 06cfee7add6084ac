#pragma once

#include <torch/torch.h>

namespace cadre {

/// Mean cross entropy of a language model's output, computed chunk by chunk over tokens so that
/// logits [T, V] never exist for the whole batch: a chunk's logits become its gradient in place.
/// hidden [..., D] and weight [V, D] differentiable; targets [...] int64, -100 = ignored. Returns a
/// scalar in nats per counted token (0 when none counts). `chunk` tokens at a time.
torch::Tensor chunked_cross_entropy(const torch::Tensor& hidden, const torch::Tensor& weight,
                                    const torch::Tensor& targets, int64_t chunk = 1024);

/// The same without gradient, one loss per token [...] (0 where ignored): for evaluation.
torch::Tensor token_losses(const torch::Tensor& hidden, const torch::Tensor& weight,
                           const torch::Tensor& targets, int64_t chunk = 1024);

}  // namespace cadre
