#pragma once

#include <torch/torch.h>

#include "cadre/routing/routing.h"

namespace cadre {

/// All experts' SwiGLU as one differentiable grouped computation with dispatch and combine:
///   y_t = sum over t's pairs of weight * W_down[e] (silu(W_gate[e] x_t) * (W_up[e] x_t)).
/// x [T, D], routing over E experts, w_gate and w_up [E, H, D], w_down [E, D, H], all fp32; returns
/// [T, D]. Gradients reach x, the three weights and routing.weight; there is no second derivative.
/// Keeps 2 D + 2 H floats a pair for backward, nothing when no gradient is wanted.
/// Throws UsageError for shapes that do not fit.
torch::Tensor expert_ffn(const torch::Tensor& x, const Routing& routing,
                         const torch::Tensor& w_gate, const torch::Tensor& w_up,
                         const torch::Tensor& w_down);

}  // namespace cadre
