#include "cadre/objectives/router_losses.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "cadre/base/error.h"

namespace cadre {
namespace {

using torch::Tensor;

/// Divides by 0 nowhere: a statistic without tokens is 0.
constexpr double kTiny = 1e-20;

Tensor zero() { return torch::zeros({}); }

/// Rows of padding out; differentiable.
Tensor valid_rows(const Tensor& rows, const Routing& routing) {
  return routing.valid.defined() ? rows.index({routing.valid}) : rows;
}

/// (std / mean)^2, std of the whole population.
Tensor squared_variation(const Tensor& x) {
  const auto mean = x.mean();
  return (x - mean).square().mean() / (mean.square() + kTiny);
}

/// [T]: the smallest score of each token's experts; infinite for a token without.
Tensor thresholds(const Routing& routing, const Tensor& scores) {
  auto result = torch::full({routing.tokens()}, std::numeric_limits<float>::infinity());
  const auto dense = scores.contiguous();
  const int64_t* offset = routing.offsets.data_ptr<int64_t>();
  const int32_t* expert = routing.expert.data_ptr<int32_t>();
  for (int64_t t = 0; t < routing.tokens(); ++t) {
    const float* row = dense.data_ptr<float>() + t * dense.size(1);
    float& least = result.data_ptr<float>()[t];
    for (int64_t p = offset[t]; p < offset[t + 1]; ++p) least = std::min(least, row[expert[p]]);
  }
  return result;
}

}  // namespace

Tensor router_entropy(const Routing& routing) {
  if (!routing.probs.defined()) return zero();
  const auto probs = valid_rows(routing.probs, routing);
  if (probs.numel() == 0) return routing.probs.sum() * 0;
  // log P times P where P is 0 is 0, and so is its gradient.
  const auto log_probs = torch::log(probs.clamp_min(std::numeric_limits<float>::min()));
  return -(probs * log_probs).sum(1).mean();
}

Tensor importance_loss(const Routing& routing) {
  if (!routing.probs.defined()) return zero();
  const auto probs = valid_rows(routing.probs, routing).narrow(1, 0, routing.experts);
  return squared_variation(probs.sum(0));
}

Tensor load_loss(const Routing& routing, double noise_std) {
  if (!(noise_std > 0)) throw UsageError("load loss: noise_std is {}, must be above 0", noise_std);
  if (!routing.logits.defined() || routing.valid_tokens() == 0) return zero();
  const auto scores = (routing.scores.defined() ? routing.scores : routing.logits).detach();
  const auto least = valid_rows(thresholds(routing, scores), routing).unsqueeze(1);
  const auto logits = valid_rows(routing.logits, routing).narrow(1, 0, routing.experts);
  const auto needed = (least - logits) / noise_std;
  const auto chance = torch::special::erfc(needed / std::sqrt(2.0)) / 2;
  return squared_variation(chance.mean(0));
}

}  // namespace cadre
