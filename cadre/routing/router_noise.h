#pragma once

#include <torch/torch.h>

#include "cadre/routing/router.h"

namespace cadre {

/// Standard normal [T, columns], a pure function of (seed, step, layer, draw) and of the place in
/// the batch, the same for any number of threads.
torch::Tensor router_noise(const RouteInput& input, int64_t columns);

}  // namespace cadre
