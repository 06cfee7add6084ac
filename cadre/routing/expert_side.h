#pragma once

/// Selection from the experts' side: not "which experts does this token want" but "which tokens
/// does this expert take". Balanced by construction, and never causal: whether a token is taken
/// depends on all the others.

#include <torch/torch.h>

#include "cadre/routing/routing.h"

namespace cadre {

/// The tokens that compete with each other, as rows 0, 1, 2, ... of a list.
using TokenGroups = std::vector<std::vector<int64_t>>;

/// One group a sequence, in rising order of sequence id; padding belongs to none. `sequence` [T]
/// int64 (undefined = one sequence), `valid` [T] bool (undefined = all). Throws UsageError when
/// they do not fit `tokens`.
TokenGroups group_by_sequence(int64_t tokens, const torch::Tensor& sequence,
                              const torch::Tensor& valid);

/// selected [T, E] bool: of each group, every expert takes the `capacity(group size)` tokens with
/// the largest scores [T, E] (all of them when the group is smaller); equal scores: the lower
/// token.
torch::Tensor take_best(const torch::Tensor& scores, const TokenGroups& groups,
                        const std::function<int64_t(int64_t)>& capacity);

/// CSR form of selected [T, E] bool with weights [T, E] (differentiable): within a token in falling
/// order of scores [T, E], equal scores by rising expert.
Routing routing_from_mask(const torch::Tensor& selected, const torch::Tensor& scores,
                          const torch::Tensor& weights, const torch::Tensor& valid);

}  // namespace cadre
