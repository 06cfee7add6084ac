#pragma once

/// Losses on a router's probabilities and logits other than balance: entropy, importance, load.
/// Padding enters no statistic; 0 for a routing without probabilities or logits.

#include "cadre/objectives/routing_objective.h"

namespace cadre {

/// mean_t H(P_t) in nats (Huang et al., "Harder Tasks Need More Experts", 2024: 1e-4). Its gradient
/// by logit i is -P_i (log P_i + H) / T.
torch::Tensor router_entropy(const Routing& routing);

/// (std / mean)^2 over experts of I_i = sum_t P_{t,i} (Shazeer et al., "Outrageously Large Neural
/// Networks", 2017, eq. 6-7; Riquelme et al., "V-MoE", 2021: 0.005).
torch::Tensor importance_loss(const Routing& routing);

/// (std / mean)^2 over experts of the smooth load mean_t p_{t,i}: the chance that expert i is
/// selected when its noise is drawn again, p = 1 - Phi((threshold_t - l_{t,i}) / noise_std),
/// threshold the smallest noisy logit selected, a constant here (V-MoE, appendix A: 0.005,
/// noise_std 1 / E). Noisy logits are routing.scores, or logits when there was no noise.
torch::Tensor load_loss(const Routing& routing, double noise_std);

}  // namespace cadre
