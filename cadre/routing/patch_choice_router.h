#pragma once

/// Union of Experts' data selection (Yang et al., "Union of Experts", 2025): a sequence is cut into
/// patches of `patch` tokens (the released code: one), each token keeps its k best experts, and
/// each expert takes its C best patches of each sequence among the kept ones.
///
///   G = softmax(W x) with all but the k largest of a token set to 0; score of a patch: the mean of
///   its tokens' G; C = ceil(share * patches). Weight of a pair: G of the token.
/// An expert may be wanted by fewer than C patches. Experts whose sum is the dense block want the
/// weights normalised over a token's experts times their number: Combine::kScaledSum of
/// cadre/experts/combine.h. Not causal: for causal models choose by token.

#include <torch/torch.h>

#include "cadre/routing/router.h"

namespace cadre {

/// What an expert does with the places that nobody wants. kPad is the released code: it fills them
/// with tokens of weight 0, so that every expert reads exactly C patches.
enum class ShortLists { kDrop, kPad };

struct PatchChoice {
  int64_t k = 2;       ///< experts a token keeps
  int64_t patch = 1;   ///< tokens a patch; the last one of a sequence may be shorter
  double share = 0.5;  ///< of a sequence's patches that each expert takes
  ShortLists short_lists = ShortLists::kDrop;
  double init_std = 0.02;
};

/// Parameters: weight [E, D], bias [E].
class PatchChoiceRouter : public Router {
 public:
  /// Throws UsageError: no experts, k of 0 or above E, patch below 1, share outside (0, 1].
  PatchChoiceRouter(int64_t hidden, int64_t experts, const PatchChoice& options);

  /// Knobs: k, and capacity_factor as the share. Throws UsageError for an input or a knob that does
  /// not fit, Error naming the layer when logits are not finite.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return weight.size(0); }
  bool causal() const override { return false; }
  bool batch_invariant() const override { return false; }
  const PatchChoice& options() const { return options_; }

  torch::Tensor weight, bias;

 private:
  PatchChoice options_;
};

}  // namespace cadre
