#pragma once

/// Top-p routing (Huang et al., "Harder Tasks Need More Experts: Dynamic Routing in MoE Models",
/// 2024): as many experts as it takes for their probabilities to pass p, so that a token about
/// which the router is unsure gets more.
///
///   P = softmax(W x); in falling order expert j is kept iff P_(1) + ... + P_(j-1) <= p; weight: P
///   as it is (paper and released code), or divided by the sum of the kept.
/// The paper trains with balance 0.01 whose load sums to the mean k (BalanceForm::kPerToken) and
/// the entropy of P at 1e-4, which keeps the router from being flat everywhere. p may be changed
/// without retraining. Early in training P is flat and k about p E + 1.

#include <torch/torch.h>

#include "cadre/routing/router.h"
#include "cadre/routing/top_k_router.h"

namespace cadre {

struct TopP {
  double p = 0.4;
  Weights weights = Weights::kRaw;
  double init_std = 0.02;
};

/// Parameter: weight [E, D].
class TopPRouter : public Router {
 public:
  /// Throws UsageError: no experts, p outside (0, 1].
  TopPRouter(int64_t hidden, int64_t experts, const TopP& options);

  /// Knob: p. Throws UsageError for an input or a knob that does not fit, Error naming the layer
  /// when logits are not finite.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return weight.size(0); }
  const TopP& options() const { return options_; }

  torch::Tensor weight;

 private:
  TopP options_;
};

}  // namespace cadre
