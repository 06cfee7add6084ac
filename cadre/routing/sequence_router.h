#pragma once

/// One decision for a whole sequence: all its tokens go to the same experts with the same weights
/// (sequence-level routing; the expert selection of Yang et al., "Union of Experts", 2025, code
/// UoME_ES). One expert set a request suits an expert cache. Not causal: a token's experts depend
/// on the tokens after it.
///
///   g = softmax(W z), z the mean of the sequence's tokens, or all of them side by side; the k
///   largest; weight: g, or g divided by the sum of the selected times `scale`.

#include <torch/torch.h>

#include "cadre/routing/router.h"
#include "cadre/routing/top_k_router.h"

namespace cadre {

struct SequenceChoice {
  int64_t k = 2;
  /// > 0: every sequence has exactly this many tokens and the router reads them side by side (the
  /// released code; fixes the length). 0: it reads their mean, any length.
  int64_t length = 0;
  Weights weights = Weights::kNormalized;
  double scale = 1.0;  ///< k makes equal gates weigh 1 each, as a union of partial sums wants
  double init_std = 0.02;
};

/// Parameter: weight [E, D], or [E, length * D].
class SequenceRouter : public Router {
 public:
  /// Throws UsageError: no experts, k of 0 or above E, length below 0.
  SequenceRouter(int64_t hidden, int64_t experts, const SequenceChoice& options);

  /// Knob: k. Throws UsageError for an input or a knob that does not fit, Error naming the layer
  /// when logits are not finite.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return weight.size(0); }
  bool causal() const override { return false; }
  bool batch_invariant() const override { return false; }
  const SequenceChoice& options() const { return options_; }

  torch::Tensor weight;

 private:
  int64_t hidden_;
  SequenceChoice options_;
};

}  // namespace cadre
