#pragma once

/// The operation "upcycle": dense models of one shape become the experts of one model.
///
/// Every input's feed-forward layers are experts; everything else is averaged, or taken from one
/// input, per class of parameters. Sparse upcycling (Komatsuzaki et al., 2023) is one input with
/// copies; Branch-Train-MiX (Sukhbaatar et al., 2024) is N inputs, averaged, with a random router;
/// mergekit-moe is N inputs, the rest from one, with a router from prompts.
///
/// Routers: zero (equal weights: with identical inputs the model is the dense one), random (normal,
/// 0.02), hidden (an expert's row is the mean hidden state of its prompts where the router really
/// looks, behind attention and norm, less that of its negative prompts, at length 1; mergekit reads
/// it at the layer's input), cheap_embed (the same of bare embeddings: the model need not run).

#include "cadre/reshape/ops.h"

namespace cadre::reshape {

OpInfo upcycle_op();

}  // namespace cadre::reshape
