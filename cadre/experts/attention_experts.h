#pragma once

/// Attention whose experts are heads (Yang et al., "Union of Experts", 2025, SMHA):
///   y_t = sum over t's experts e of weight * W_o[e] attention_e(x)_t,
/// where expert e attends among its own tokens of the sequence only: a token is query, key and
/// value of the heads that took it. With all tokens in all experts and weight 1 it is multi-head
/// attention. No positions of its own: they come with x.

#include <torch/torch.h>

#include "cadre/kernels/attention.h"
#include "cadre/routing/routing.h"

namespace cadre {

struct AttentionExpertsOptions {
  int64_t hidden;     ///< D
  int64_t experts;    ///< E
  int64_t heads = 1;  ///< of one expert
  int64_t head_dim;
  /// kCausal: a query sees its expert's tokens up to itself; with a router that chooses by token
  /// the layer is causal then.
  kernels::Mask mask = kernels::Mask::kNone;
  double init_std = 0.02;
};

/// Parameters: q_proj, k_proj, v_proj [E, heads * head_dim, D], o_proj [E, D, heads * head_dim]
/// ~ N(0, init_std^2); as partition() of an attention layer gives them.
class AttentionExperts : public torch::nn::Module {
 public:
  /// Throws UsageError for sizes below 1.
  explicit AttentionExperts(const AttentionExpertsOptions& options);

  /// x [B, T, D], a routing of the B * T tokens; returns [B, T, D], zeros for a token that no
  /// expert took. Costs a padded [E * B, L, L] of scores, L the longest list of an expert in a
  /// sequence. Throws UsageError for shapes that do not fit.
  torch::Tensor forward(const torch::Tensor& x, const Routing& routing);

  const AttentionExpertsOptions& options() const { return options_; }
  torch::Tensor q_proj, k_proj, v_proj, o_proj;

 private:
  AttentionExpertsOptions options_;
};

}  // namespace cadre
