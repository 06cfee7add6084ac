#pragma once

/// The operation "prune_experts": each layer keeps those of its experts that matter most, and the
/// router loses the others' rows. Three measures: how often an expert is chosen (hits), how much
/// router weight it gets (reach), how much its weighted output adds (loss: what the layer's output
/// loses without it, Lasby et al., "REAP the Experts", 2025).
///
/// An expert that was never chosen can be dropped without a trace only where weights are normalised
/// over the chosen; under a softmax over all its logit still shared the denominator.

#include "cadre/reshape/ops.h"

namespace cadre::reshape {

OpInfo prune_experts_op();

}  // namespace cadre::reshape
