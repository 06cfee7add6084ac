#include "cadre/experts/combine.h"

namespace cadre {
namespace {

/// Keeps a sum of weights off zero; far below the smallest that matters.
constexpr double kTiny = 1e-20;

}  // namespace

torch::Tensor combine_weights(const Routing& routing, Combine combine) {
  if (combine == Combine::kWeighted) return routing.weight;
  if (combine == Combine::kSum) return torch::ones_like(routing.weight.detach());
  const auto token = torch::repeat_interleave(routing.offsets.diff());
  const auto per_token = [&](const torch::Tensor& pairs) {
    return torch::zeros({routing.tokens()}).index_add(0, token, pairs).index_select(0, token);
  };
  const auto count = per_token((routing.weight.detach() > 0).to(torch::kFloat32));
  return routing.weight * count / per_token(routing.weight).clamp_min(kTiny);
}

}  // namespace cadre
