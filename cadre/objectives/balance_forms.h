#pragma once

/// Load balance in the forms of single papers, beside expert_balance() of routing_objective.h. Load
/// never carries a gradient, padding enters no statistic; 0 for a routing without probabilities.

#include <optional>

#include "cadre/formats/router_kinds.h"
#include "cadre/objectives/routing_objective.h"

namespace cadre {

/// E sum_i f_i Q_i with f_i = pairs of expert i / T, which sums to the mean k, so that this is the
/// mean k when balanced and pulls harder where tokens take more experts (Huang et al., "Harder
/// Tasks Need More Experts", 2024: 0.01).
torch::Tensor balance_per_token(const Routing& routing);

/// (E + M) sum_i f_i Q_i over true and null experts, f_i = slots of i / all slots, each null's f
/// replaced by the nulls' mean: they need no balance among themselves (Zeng et al., "AdaMoE", 2024:
/// 0.001; the paper anneals 0.02 to 1e-4). 1 when probabilities are uniform.
torch::Tensor balance_pooled_nulls(const Routing& routing);

/// E sum_i (share of tokens whose first expert is i) Q_i (Lepikhin et al., "GShard", 2021, there as
/// a mean over i of the product, times E^2).
torch::Tensor balance_gshard(const Routing& routing);

/// The form that a router's paper has, with this coefficient; kNone makes none (nullopt).
std::optional<RoutingObjective> balance_of(BalanceForm form, double coefficient,
                                           BalanceScope scope = BalanceScope::kBatch);

}  // namespace cadre
