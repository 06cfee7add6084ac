#pragma once

/// Expert capacity (Lepikhin et al., "GShard", 2021; Fedus et al., "Switch Transformers", 2022): an
/// expert takes at most so many pairs of a batch, the rest are dropped. For hardware with fixed
/// buffers and as a baseline; cadre's expert layers need none.

#include "cadre/routing/routing.h"

namespace cadre {

/// Who loses when an expert is full: later tokens, or lower scores (equal scores: later tokens).
enum class DropOrder { kPosition, kScore };

/// ceil(factor * k * tokens / experts), the capacity of one expert.
int64_t expert_capacity(double factor, int64_t k, int64_t tokens, int64_t experts);

/// The routing with at most `capacity` pairs an expert; `dropped` counts the lost ones. Weights of
/// the others stay as they are. A pair's score is its entry in routing.probs.
Routing drop_over_capacity(const Routing& routing, int64_t capacity, DropOrder order);

}  // namespace cadre
