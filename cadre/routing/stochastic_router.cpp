#include "cadre/routing/stochastic_router.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/expert_side.h"

namespace cadre {
namespace {

constexpr uint64_t kDrawStream = 0x64726177;  // "draw"

/// Tokens that share a draw; padding is in no group.
TokenGroups groups_of(const RouteInput& input, DrawScope scope) {
  const int64_t tokens = input.hidden.size(0);
  if (scope == DrawScope::kToken) {
    return group_by_sequence(tokens, torch::arange(tokens, torch::kInt64), valid_tokens_of(input));
  }
  const auto sequence = scope == DrawScope::kSequence ? input.sequence : torch::Tensor();
  return group_by_sequence(tokens, sequence, valid_tokens_of(input));
}

/// The first k of a shuffled deck are distinct and uniform.
void deal(Random& random, std::vector<int32_t>& deck, int64_t k) {
  for (int64_t i = 0; i < k; ++i) std::swap(deck[i], deck[i + random.below(deck.size() - i)]);
}

}  // namespace

StochasticRouter::StochasticRouter(int64_t experts, const StochasticExperts& options)
    : experts_(experts), options_(options) {
  check_router_sizes(1, experts);
}

Routing StochasticRouter::route(const RouteInput& input) {
  const int64_t tokens = input.hidden.size(0), k = input.knobs.k.value_or(1);
  check_router_k(k, experts_);
  const bool training = input.mode == RouteMode::kTrain;
  Random random(input.seed,
                {kDrawStream, static_cast<uint64_t>(input.step), static_cast<uint64_t>(input.layer),
                 static_cast<uint64_t>(input.draw)});
  std::vector<int32_t> deck(experts_);
  std::iota(deck.begin(), deck.end(), 0);
  auto ids = torch::zeros({tokens, k}, torch::kInt32);
  for (const auto& group : groups_of(input, training ? options_.train : options_.eval)) {
    deal(random, deck, k);
    for (const int64_t t : group) std::copy_n(deck.begin(), k, ids.data_ptr<int32_t>() + t * k);
  }
  const auto weights = torch::full({tokens, k}, 1.0 / static_cast<double>(k));
  Routing routing = routing_from_dense(experts_, ids, weights, valid_tokens_of(input));
  // The same for all: one number, expanded.
  routing.logits = torch::zeros({1, 1}).expand({tokens, experts_});
  routing.probs =
      torch::full({1, 1}, 1.0 / static_cast<double>(experts_)).expand({tokens, experts_});
  return routing;
}

}  // namespace cadre
