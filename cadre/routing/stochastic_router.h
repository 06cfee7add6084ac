#pragma once

/// No gate at all (Zuo et al., "Taming Sparsely Activated Transformer with Stochastic Experts",
/// 2022, THOR): experts are drawn uniformly, in training and at inference. Train it with two passes
/// (RouteInput.draw 0 and 1) over each batch and the consistency objective, so that any expert
/// gives the same prediction. No parameters; one expert a token, weight 1. With a knob k: that many
/// distinct experts, weight 1 / k (k = E is the paper's ensemble). A routing's logits and probs are
/// one number each, expanded.

#include <torch/torch.h>

#include "cadre/routing/router.h"

namespace cadre {

/// What shares one draw. THOR draws for the batch in training; at inference for each sequence
/// (the released script's choice) or each token.
enum class DrawScope { kBatch, kSequence, kToken };

struct StochasticExperts {
  DrawScope train = DrawScope::kBatch;
  DrawScope eval = DrawScope::kSequence;
};

/// A draw is a pure function of (seed, step, layer, draw) and of the sequence's rank or the token's
/// place in the batch.
class StochasticRouter : public Router {
 public:
  /// Throws UsageError without experts.
  StochasticRouter(int64_t experts, const StochasticExperts& options);

  /// Knob: k. Throws UsageError for a k of 0 or above E.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return experts_; }
  /// Another place in the batch is another draw.
  bool batch_invariant() const override { return options_.eval == DrawScope::kBatch; }
  const StochasticExperts& options() const { return options_; }

 private:
  int64_t experts_;
  StochasticExperts options_;
};

}  // namespace cadre
