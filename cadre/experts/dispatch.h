#pragma once

#include <torch/torch.h>

namespace cadre {

/// The pairs of a routing sorted by expert; a slot is a pair's place in that order.
struct Dispatch {
  torch::Tensor expert_offsets;  ///< [E + 1] int64: expert e owns slots [offsets[e], offsets[e+1])
  torch::Tensor token_of_slot;   ///< [pairs] int64
  torch::Tensor slot_of_pair;    ///< [pairs] int64
};

/// token_offsets [T + 1] int64 and expert [pairs] int32 as in a Routing over `experts` experts.
Dispatch dispatch(const torch::Tensor& token_offsets, const torch::Tensor& expert, int64_t experts);

}  // namespace cadre
