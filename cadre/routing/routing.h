#pragma once

/// The routing decision: which tokens go to which experts with which weight. The same thing for
/// every router; nobody assumes a fixed k.

#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace cadre {

/// Pairs (token, expert, weight) stored by token: token t owns pairs [offsets[t], offsets[t + 1]).
/// All tensors are dense and on the CPU.
struct Routing {
  int64_t experts = 0;    ///< E: true experts; ids >= E (null experts) are never stored
  torch::Tensor offsets;  ///< [T + 1] int64
  torch::Tensor expert;   ///< [pairs] int32, in falling order of score within a token
  torch::Tensor weight;   ///< [pairs] float32, differentiable
  torch::Tensor logits;   ///< [T, E (+ nulls)] float32, for losses and reports
  torch::Tensor probs;    ///< [T, E (+ nulls)] float32, differentiable
  torch::Tensor scores;  ///< [T, E] noisy logits when noise moved the selection; undefined = logits
  torch::Tensor state;   ///< [T, p] for the next layer's router; undefined = none
  torch::Tensor valid;   ///< [T] bool: tokens that are not padding; undefined = all
  int64_t dropped = 0;   ///< pairs lost to capacity
  int64_t null = 0;      ///< slots that went to null experts

  int64_t tokens() const { return offsets.size(0) - 1; }
  int64_t pairs() const { return expert.size(0); }
  /// Tokens that are not padding.
  int64_t valid_tokens() const;
  /// Pairs per expert, [E] int64.
  torch::Tensor load() const;
  /// The same decision without gradients; tensors are shared, not copied.
  Routing detach() const;
};

/// Figures of one routing, for logs and reports (no gradient).
struct RoutingStats {
  std::vector<double> load;  ///< share of pairs per expert, sums to 1 (all 0 without pairs)
  double mean_k = 0;         ///< pairs per valid token
  double share_empty = 0;    ///< share of valid tokens without an expert
  double entropy = 0;        ///< mean over valid tokens of the entropy of probs, in nats
  double max_over_mean_load = 0;
  int64_t dropped = 0, null = 0;
};
RoutingStats stats_of(const Routing& routing);

/// Builds the CSR form from a dense selection: indices [T, k] (int32 or int64) and weights [T, k]
/// (differentiable). Ids >= experts are null experts: counted, not stored. Rows of padding tokens
/// (`valid` [T] bool, false) become empty. Throws UsageError for a negative id or shapes that do
/// not fit.
Routing routing_from_dense(int64_t experts, const torch::Tensor& indices,
                           const torch::Tensor& weights, const torch::Tensor& valid = {});

}  // namespace cadre
