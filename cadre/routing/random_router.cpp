#include "cadre/routing/random_router.h"

#include "cadre/base/error.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/selection.h"

namespace cadre {
RandomRouter::RandomRouter(int64_t hidden, int64_t experts, const RandomExperts& options)
    : options_(options) {
  check_router_sizes(hidden, experts);
  if (options_.k == 0) options_.k = options_.schedule.last;
  for (const int64_t k : {options_.schedule.first, options_.schedule.last, options_.k}) {
    check_router_k(k, experts);
  }
  if (!(options.gate_std > 0)) {
    throw UsageError("router: gate_std is {}, must be above 0", options.gate_std);
  }
  weight = register_buffer("weight", initial_gate(experts, hidden, options.gate_std));
  bias = register_buffer("bias", torch::zeros({experts}));
}

int64_t RandomRouter::k_of(const RouteInput& input) const {
  if (input.knobs.k) return *input.knobs.k;
  if (input.mode == RouteMode::kEval) return options_.k;
  return options_.schedule.at(input.step, input.total_steps);
}

Routing RandomRouter::route(const RouteInput& input) {
  const int64_t k = k_of(input);
  check_router_k(k, experts());
  const auto valid = valid_tokens_of(input);
  const auto logits = affinity(input, weight) + bias;
  const Rows rows = rows_of(row_top_k(logits, k), experts(), valid);
  const auto weights = row_weights(logits, rows, Weighting::kSoftmax);
  return routing_of(experts(), rows, weights, logits, torch::softmax(logits, 1), valid);
}

}  // namespace cadre
