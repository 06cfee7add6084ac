#include "cadre/routing/top_p_router.h"

#include "cadre/base/error.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/selection.h"

namespace cadre {
namespace {

void check_p(double p) {
  if (p > 0 && p <= 1) return;
  throw UsageError("router: p is {}, must be above 0 and at most 1", p);
}

}  // namespace

TopPRouter::TopPRouter(int64_t hidden, int64_t experts, const TopP& options) : options_(options) {
  check_router_sizes(hidden, experts);
  check_p(options.p);
  weight = register_parameter("weight", initial_gate(experts, hidden, options.init_std));
}

Routing TopPRouter::route(const RouteInput& input) {
  const double p = input.knobs.p.value_or(options_.p);
  check_p(p);
  const auto valid = valid_tokens_of(input);
  const auto logits = affinity(input, weight);
  const auto probs = torch::softmax(logits, 1);
  const Rows rows = row_prefix(probs, p, valid);
  const auto weighting =
      options_.weights == Weights::kNormalized ? Weighting::kNormalized : Weighting::kRaw;
  return routing_of(experts(), rows, row_weights(probs, rows, weighting), logits, probs, valid);
}

}  // namespace cadre
