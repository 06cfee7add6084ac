#pragma once

/// Null experts (Zeng et al., "AdaMoE: Token-Adaptive Routing with Null Experts for
/// Mixture-of-Experts Language Models", 2024): top-k over E true and M null experts, with a larger
/// k. A null expert adds nothing and costs nothing, so that a token has 0 to k true experts; the
/// balance loss holds the nulls' share near M / (E + M).
///
///   P = softmax([W_true; W_null] x); the k largest, nulls left out; weight: P divided by the sum
///   over the true ones chosen ("option 2", paper and code), or over all k slots ("option 1").
/// From scratch the first form gives the null logits no task gradient: start from a trained top-k
/// router with the nulls tiled from its rows, as the authors do. Ties go to true experts.

#include <torch/torch.h>

#include "cadre/routing/router.h"

namespace cadre {

enum class NullNorm { kTrueOnly, kAllSlots };

struct NullExperts {
  int64_t nulls = 8;  ///< M; with none this is normalised top-k
  int64_t k = 4;      ///< slots a token
  NullNorm norm = NullNorm::kTrueOnly;
  double init_std = 0.02;
};

/// Parameters: weight [E, D]; null_weight [M, D] when there are nulls.
class NullExpertsRouter : public Router {
 public:
  /// Throws UsageError: no experts, nulls below 0 or more ids than a routing has, k of 0 or above
  /// E + M.
  NullExpertsRouter(int64_t hidden, int64_t experts, const NullExperts& options);

  /// Knob: k. Throws UsageError for an input or a knob that does not fit, Error naming the layer
  /// when logits are not finite.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return weight.size(0); }
  const NullExperts& options() const { return options_; }
  /// Makes every null expert the twin of a true one, in turn: M = E, k twice as large routes as
  /// before.
  void tile_nulls();

  torch::Tensor weight, null_weight;

 private:
  NullExperts options_;
};

}  // namespace cadre
