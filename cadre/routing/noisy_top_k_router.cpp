#include "cadre/routing/noisy_top_k_router.h"

#include "cadre/base/error.h"
#include "cadre/nn/linear.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/router_noise.h"
#include "cadre/routing/selection.h"

namespace cadre {
NoisyTopKRouter::NoisyTopKRouter(int64_t hidden, int64_t experts, const NoisyTopK& options)
    : options_(options) {
  check_router_sizes(hidden, experts);
  check_router_k(options.k, experts);
  if (!(options.scale >= 0)) {
    throw UsageError("router: noise is {}, must not be negative", options.scale);
  }
  weight = register_parameter("weight", initial_gate(experts, hidden, options.init_std));
  if (options.noise == RouterNoise::kLearned) {
    noise_weight = register_parameter("noise_weight", torch::zeros({experts, hidden}));
  }
}

torch::Tensor NoisyTopKRouter::noisy(const RouteInput& input, const torch::Tensor& logits) const {
  if (input.mode != RouteMode::kTrain || options_.scale == 0) return logits;
  const auto noise = router_noise(input, experts()) * options_.scale;
  if (options_.noise == RouterNoise::kFixed) return logits + noise / experts();
  const auto width = cadre::linear(input.hidden.to(torch::kFloat32), noise_weight);
  return logits + noise * torch::softplus(width);
}

Routing NoisyTopKRouter::route(const RouteInput& input) {
  const int64_t k = input.knobs.k.value_or(options_.k);
  check_router_k(k, experts());
  const auto logits = affinity(input, weight);
  const auto scores = noisy(input, logits);
  const auto probs = torch::softmax(scores, 1);
  const auto valid = valid_tokens_of(input);
  const Rows rows = rows_of(row_top_k(scores, k), experts(), valid);
  const auto weights = options_.noise == RouterNoise::kFixed
                           ? row_weights(probs, rows, Weighting::kRaw)
                           : row_weights(scores, rows, Weighting::kSoftmax);
  Routing routing = routing_of(experts(), rows, weights, logits, probs, valid);
  routing.scores = scores;
  return routing;
}

}  // namespace cadre
