#pragma once

/// Expert choice (Zhou et al., "Mixture-of-Experts with Expert Choice Routing", 2022): each expert
/// takes the tokens it wants most, so that load is equal by construction and a token gets as many
/// experts as want it, from none to all.
///
///   S = softmax over experts of W x (+ noise); every expert takes its C = ceil(factor * T / E)
///   best tokens of each scope, C rounded up to a multiple of four; weight: S.
/// Needs no balance loss. Not causal: for decoding name a router that chooses by token.

#include <torch/torch.h>

#include "cadre/routing/router.h"

namespace cadre {

/// The tokens that compete for an expert's places.
enum class ChoiceScope { kBatch, kSequence };

struct ExpertChoice {
  double capacity_factor = 2.0;  ///< mean experts a token
  ChoiceScope scope = ChoiceScope::kBatch;
  /// Of the normal noise on the logits in training, times 1 / E (Riquelme et al., "V-MoE", 2021).
  /// 0 = none.
  double noise = 0.0;
  double init_std = 0.02;
};

/// Parameter: weight [E, D].
class ExpertChoiceRouter : public Router {
 public:
  /// Throws UsageError: no experts, factor not above 0, noise below 0.
  ExpertChoiceRouter(int64_t hidden, int64_t experts, const ExpertChoice& options);

  /// Knob: capacity_factor. Throws UsageError for an input or a knob that does not fit, Error
  /// naming the layer when logits are not finite.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return weight.size(0); }
  bool causal() const override { return false; }
  bool batch_invariant() const override { return false; }
  const ExpertChoice& options() const { return options_; }

  torch::Tensor weight;

 private:
  ExpertChoice options_;
};

/// C for a scope of `tokens`: ceil(factor * tokens / experts), up to a multiple of four, at most
/// `tokens`.
int64_t choice_capacity(double factor, int64_t tokens, int64_t experts);

}  // namespace cadre
