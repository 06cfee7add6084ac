#pragma once

/// How a token's experts are put together.

#include <torch/torch.h>

#include "cadre/routing/routing.h"

namespace cadre {

enum class Combine {
  kWeighted,  ///< sum of weight * output: rivals that share a token (all of Mixtral's kin)
  /// Sum of outputs: parts of one dense block (Union of Experts as released). No gradient reaches
  /// the router, which stays at its initialisation.
  kSum,
  /// Sum of (weight / sum of the token's weights * number of its experts) * output: equal weights
  /// give 1 each and with all experts the dense block, and the router learns. Pairs of weight 0
  /// neither count nor add.
  kScaledSum,
};

/// The weights [pairs] by which outputs are added, differentiable in routing.weight.
torch::Tensor combine_weights(const Routing& routing, Combine combine);

}  // namespace cadre
