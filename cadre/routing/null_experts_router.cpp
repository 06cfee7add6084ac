#include "cadre/routing/null_experts_router.h"

#include "cadre/base/error.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/selection.h"

namespace cadre {
namespace {

/// As many as the run wing's 16-bit ids tell apart.
constexpr int64_t kMaxIds = 1 << 16;

void check_k(int64_t k, int64_t ids) {
  if (k >= 1 && k <= ids) return;
  throw UsageError("router: k is {}, must be 1 to {}, the true and null experts", k, ids);
}

}  // namespace

NullExpertsRouter::NullExpertsRouter(int64_t hidden, int64_t experts, const NullExperts& options)
    : options_(options) {
  check_router_sizes(hidden, experts);
  if (options.nulls < 0 || options.nulls > kMaxIds - experts) {
    throw UsageError("router: {} null experts beside {} true ones, there may be 0 to {}",
                     options.nulls, experts, kMaxIds - experts);
  }
  check_k(options.k, experts + options.nulls);
  const auto normal = [&](int64_t rows) { return initial_gate(rows, hidden, options.init_std); };
  weight = register_parameter("weight", normal(experts));
  if (options.nulls > 0) null_weight = register_parameter("null_weight", normal(options.nulls));
}

void NullExpertsRouter::tile_nulls() {
  if (options_.nulls == 0) return;
  const torch::NoGradGuard no_grad;
  null_weight.copy_(weight.index_select(0, torch::arange(options_.nulls) % experts()));
}

Routing NullExpertsRouter::route(const RouteInput& input) {
  const int64_t k = input.knobs.k.value_or(options_.k);
  check_k(k, experts() + options_.nulls);
  const auto valid = valid_tokens_of(input);
  const auto all = options_.nulls > 0 ? torch::cat({weight, null_weight}) : weight;
  const auto logits = affinity(input, all);
  const auto probs = torch::softmax(logits, 1);
  const auto ids = row_top_k(probs, k);
  const Rows rows = rows_of(ids, experts(), valid);
  if (options_.norm == NullNorm::kTrueOnly) {
    const auto weights = row_weights(probs, rows, Weighting::kNormalized);
    return routing_of(experts(), rows, weights, logits, probs, valid);
  }
  const Rows slots = rows_of(ids, experts() + options_.nulls);
  const auto weights = row_weights(probs, slots, Weighting::kNormalized).view({-1, k});
  Routing routing = routing_from_dense(experts(), ids, weights, valid);
  routing.logits = logits;
  routing.probs = probs;
  return routing;
}

}  // namespace cadre
