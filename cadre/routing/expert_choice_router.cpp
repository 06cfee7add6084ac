#include "cadre/routing/expert_choice_router.h"

#include <algorithm>
#include <cmath>

#include "cadre/base/error.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/expert_side.h"
#include "cadre/routing/router_noise.h"

namespace cadre {
int64_t choice_capacity(double factor, int64_t tokens, int64_t experts) {
  const double share = factor * static_cast<double>(tokens) / static_cast<double>(experts);
  if (share >= static_cast<double>(tokens)) return tokens;
  const auto places = static_cast<int64_t>(std::ceil(share));
  return std::min((places + 3) / 4 * 4, tokens);
}

ExpertChoiceRouter::ExpertChoiceRouter(int64_t hidden, int64_t experts, const ExpertChoice& options)
    : options_(options) {
  check_router_sizes(hidden, experts);
  check_capacity_factor(options.capacity_factor);
  if (!(options.noise >= 0)) {
    throw UsageError("router: noise is {}, must not be negative", options.noise);
  }
  weight = register_parameter("weight", initial_gate(experts, hidden, options.init_std));
}

Routing ExpertChoiceRouter::route(const RouteInput& input) {
  const double factor = input.knobs.capacity_factor.value_or(options_.capacity_factor);
  check_capacity_factor(factor);
  const auto logits = affinity(input, weight);
  const bool noisy = input.mode == RouteMode::kTrain && options_.noise > 0;
  const auto probs = torch::softmax(
      noisy ? logits + router_noise(input, experts()) * (options_.noise / experts()) : logits, 1);
  const auto valid = valid_tokens_of(input);
  const bool by_sequence = options_.scope == ChoiceScope::kSequence;
  const auto groups =
      group_by_sequence(logits.size(0), by_sequence ? input.sequence : torch::Tensor(), valid);
  const auto selected = take_best(
      probs, groups, [&](int64_t tokens) { return choice_capacity(factor, tokens, experts()); });
  Routing routing = routing_from_mask(selected, probs, probs, valid);
  routing.logits = logits;
  routing.probs = probs;
  return routing;
}

}  // namespace cadre
