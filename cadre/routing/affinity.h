#pragma once

/// What most routers begin with.

#include <torch/torch.h>

#include "cadre/routing/router.h"

namespace cadre {

/// Logits [T, E] = hidden W^T in fp32, weight [E, D]. Throws UsageError when hidden is not [T, D],
/// Error naming the layer when a logit is not finite.
torch::Tensor affinity(const RouteInput& input, const torch::Tensor& weight);

/// Throws Error naming the layer when a logit is not finite.
void check_finite_logits(const torch::Tensor& logits, int64_t layer);

/// Throws UsageError unless hidden is [T, width].
void check_router_input(const RouteInput& input, int64_t width);

/// Throws UsageError for a hidden width or a number of experts below 1.
void check_router_sizes(int64_t hidden, int64_t experts);

/// Throws UsageError for a k of 0 or above the experts.
void check_router_k(int64_t k, int64_t experts);

/// Throws UsageError for a factor of 0 or below, or not finite.
void check_capacity_factor(double factor);

/// The gate [E, D] that training begins with, N(0, std^2) from torch's generator.
torch::Tensor initial_gate(int64_t experts, int64_t hidden, double std);

/// [T] bool, true = not padding; undefined when there is no padding.
torch::Tensor valid_tokens_of(const RouteInput& input);

/// The k largest of each row of scores [T, E] as ids [T, k] int32, in falling order; equal scores:
/// the lower id.
torch::Tensor row_top_k(const torch::Tensor& scores, int64_t k);

}  // namespace cadre
