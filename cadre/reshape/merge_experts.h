#pragma once

/// The operation "merge_experts": fewer experts inside a mixture-of-experts model.
///
/// Li et al., "Merge, Then Compress: Demystify Efficient SMoE with Hints from Its Routing Policy"
/// (2024): align neurons (align.h), group by routing statistics, average by usage
/// (expert_groups.h). The router keeps its outputs; a map in the checkpoint ("...mlp.expert_map",
/// int32 [E]) sends each of them to the stored expert, and two picks of a token that meet in one
/// expert run it once with the sum of their weights.
///
/// The paper aligns every expert to expert 0; `reference = "dominant"` aligns to the group's most
/// used one. Grouping by what experts answer ("outputs") or are ("weights") is what later work
/// found better without a recovery training.

#include "cadre/reshape/ops.h"

namespace cadre::reshape {

OpInfo merge_experts_op();

}  // namespace cadre::reshape
