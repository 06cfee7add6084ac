#include "cadre/routing/top_k_router.h"

#include <algorithm>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/kernels/top_k.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/selection.h"

namespace cadre {
namespace {

void check(int64_t hidden, int64_t experts, const TopK& options) {
  check_router_sizes(hidden, experts);
  if (options.groups < 1 || experts % options.groups != 0) {
    throw UsageError("router: {} experts do not divide into {} groups", experts, options.groups);
  }
  if (options.groups_used < 1 || options.groups_used > options.groups) {
    throw UsageError("router: groups_used is {}, must be 1 to {}", options.groups_used,
                     options.groups);
  }
  if (options.bias_update < 0) {
    throw UsageError("router: bias_update is {}, must not be negative", options.bias_update);
  }
}

void check_k(int64_t k, int64_t experts, const TopK& options) {
  const int64_t reachable = experts / options.groups * options.groups_used;
  if (k >= 1 && k <= reachable) return;
  throw UsageError("router: k is {}, must be 1 to {}, the experts{} it may choose from", k,
                   reachable, options.groups > 1 ? " in the groups" : "");
}

/// scores [T, E] with -inf outside each token's best groups.
torch::Tensor within_best_groups(const torch::Tensor& scores, int64_t groups, int64_t used,
                                 int64_t best_of_group) {
  const int64_t tokens = scores.size(0), size = scores.size(1) / groups;
  best_of_group = std::min(best_of_group, size);
  auto ids = torch::empty({tokens * groups, best_of_group}, torch::kInt32);
  auto values = torch::empty({tokens * groups, best_of_group}, torch::kFloat32);
  kernels::top_k(scores.data_ptr<float>(), tokens * groups, size, best_of_group,
                 ids.data_ptr<int32_t>(), values.data_ptr<float>());
  const auto group_scores = values.sum(1).contiguous();
  auto best = torch::empty({tokens, used}, torch::kInt32);
  kernels::top_k(group_scores.data_ptr<float>(), tokens, groups, used, best.data_ptr<int32_t>(),
                 nullptr);
  auto masked = torch::full_like(scores, -std::numeric_limits<float>::infinity());
  const int32_t* group = best.data_ptr<int32_t>();
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t j = 0; j < used; ++j) {
      const int64_t start = (t * groups + group[t * used + j]) * size;
      std::copy_n(scores.data_ptr<float>() + start, size, masked.data_ptr<float>() + start);
    }
  }
  return masked;
}

}  // namespace

TopKRouter::TopKRouter(int64_t hidden, int64_t experts, const TopK& options)
    : experts_(experts), options_(options) {
  check(hidden, experts, options);
  check_k(options.k, experts, options);
  if (options.capacity_factor) check_capacity_factor(*options.capacity_factor);
  weight = register_parameter("weight", initial_gate(experts, hidden, options.init_std));
  if (options.bias_update > 0) {
    e_score_correction_bias = register_buffer("e_score_correction_bias", torch::zeros({experts}));
  }
}

torch::Tensor TopKRouter::select(const torch::Tensor& probs, int64_t k) const {
  auto scores = probs.detach();
  if (options_.bias_update > 0) scores = scores + e_score_correction_bias;
  if (options_.groups_used < options_.groups) {
    const int64_t best_of_group = options_.bias_update > 0 ? 2 : 1;
    scores = within_best_groups(scores, options_.groups, options_.groups_used, best_of_group);
  }
  return row_top_k(scores, k);
}

Routing TopKRouter::route(const RouteInput& input) {
  const int64_t k = input.knobs.k.value_or(options_.k);
  const auto factor =
      input.knobs.capacity_factor ? input.knobs.capacity_factor : options_.capacity_factor;
  check_k(k, experts_, options_);
  if (factor) check_capacity_factor(*factor);

  const auto valid = valid_tokens_of(input);
  const auto logits = affinity(input, weight);
  const auto probs =
      options_.squash == Squash::kSoftmax ? torch::softmax(logits, 1) : torch::sigmoid(logits);
  const Rows rows = rows_of(select(probs, k), experts_, valid);
  const auto weighting =
      options_.weights == Weights::kNormalized ? Weighting::kNormalized : Weighting::kRaw;
  const auto weights = row_weights(probs, rows, weighting, options_.scale);
  const Routing routing = routing_of(experts_, rows, weights, logits, probs, valid);
  if (!factor) return routing;
  const int64_t capacity = expert_capacity(*factor, k, routing.valid_tokens(), experts_);
  return drop_over_capacity(routing, capacity, options_.drop_order);
}

void TopKRouter::after_step(const torch::Tensor& load) {
  if (options_.bias_update <= 0) return;
  torch::NoGradGuard no_grad;
  const auto count = load.to(torch::kFloat32);
  e_score_correction_bias.add_(torch::sign(count.mean() - count), options_.bias_update)
      .clamp_(-1.0, 1.0);
}

}  // namespace cadre
