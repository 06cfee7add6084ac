#pragma once

/// Loss terms on a routing decision. Load f never carries a gradient; padding enters no statistic;
/// a routing without probabilities or logits (hash, stochastic experts) gives 0.

#include <torch/torch.h>

#include <functional>
#include <string>

#include "cadre/routing/router.h"
#include "cadre/routing/routing.h"

namespace cadre {

/// A term that an expert layer adds for its routing. evaluate() returns a scalar without the
/// coefficient.
struct RoutingObjective {
  std::string name;
  double coefficient;
  std::function<torch::Tensor(const Routing&, const RouteInput&)> evaluate;
};

/// Over which tokens the load is averaged. kSequence takes the mean of the sequences' own balances
/// (the released DeepSeekMoE 16B): noisier on short batches and a harder push to uniform.
enum class BalanceScope { kBatch, kSequence };

/// Expert-level balance (Dai et al., "DeepSeekMoE", 2024, eq. 12-14; the form of Fedus et al.,
/// "Switch Transformers", 2022): sum_i f_i P_i with f_i = E / (k T) * pairs of expert i and
/// P_i = mean_t probs[t, i]; 1 when balanced. k is the mean number of pairs per token. Probs are
/// normalised over the experts first (sigmoid scores do not sum to 1). 0 for a routing without
/// pairs.
torch::Tensor expert_balance(const Routing& routing, const RouteInput& input,
                             BalanceScope scope = BalanceScope::kBatch);

/// Device-level balance (DeepSeekMoE, eq. 15-17): experts in `groups` equal groups; sum over groups
/// of mean_{j in group} f_j times sum_{j in group} P_j. Throws UsageError when groups do not
/// divide.
torch::Tensor device_balance(const Routing& routing, int64_t groups);

/// Router z-loss (Zoph et al., "ST-MoE", 2022, eq. 5): mean_t (logsumexp_i logits[t, i])^2.
torch::Tensor router_z_loss(const Routing& routing);

/// Named "balance", "device_balance" and "z_loss". Usual coefficients: 0.01 (Switch, DeepSeekMoE
/// 2B), 0.05 (DeepSeekMoE 145B), 0.001 (ST-MoE).
RoutingObjective balance_expert(double coefficient, BalanceScope scope = BalanceScope::kBatch);
RoutingObjective balance_device(double coefficient, int64_t groups);
RoutingObjective z_loss(double coefficient);

}  // namespace cadre
