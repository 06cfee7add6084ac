#include "cadre/routing/routing.h"

#include <algorithm>

#include "cadre/base/error.h"

namespace cadre {
namespace {

void check_selection(const torch::Tensor& indices, const torch::Tensor& weights,
                     const torch::Tensor& valid) {
  if (indices.dim() != 2 || indices.sizes() != weights.sizes()) {
    throw UsageError("routing: indices and weights must both be [tokens, k]");
  }
  if (valid.defined() && (valid.dim() != 1 || valid.size(0) != indices.size(0))) {
    throw UsageError("routing: the mask of valid tokens must be [{}]", indices.size(0));
  }
}

/// The pairs of a dense selection that a routing stores.
struct Stored {
  std::vector<int64_t> slots;  ///< positions in the flattened [T, k]
  int64_t null = 0;
};

Stored stored_slots(const torch::Tensor& ids, int64_t experts, const torch::Tensor& valid,
                    int64_t* offsets) {
  const int64_t tokens = ids.size(0), k = ids.size(1);
  const int32_t* id = ids.data_ptr<int32_t>();
  const bool* is_valid = valid.defined() ? valid.data_ptr<bool>() : nullptr;
  Stored stored;
  stored.slots.reserve(tokens * k);
  offsets[0] = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t slot = t * k; slot < (t + 1) * k && (!is_valid || is_valid[t]); ++slot) {
      if (id[slot] < 0) throw UsageError("routing: token {} has expert {}", t, id[slot]);
      if (id[slot] < experts) {
        stored.slots.push_back(slot);
      } else {
        ++stored.null;
      }
    }
    offsets[t + 1] = static_cast<int64_t>(stored.slots.size());
  }
  return stored;
}

double mean_entropy(const Routing& routing) {
  auto probs = routing.probs.detach();
  if (routing.valid.defined()) probs = probs.index({routing.valid});
  if (probs.numel() == 0) return 0;
  probs = probs / probs.sum(1, /*keepdim=*/true);
  return -torch::xlogy(probs, probs).sum(1).mean().item<double>();
}

int64_t empty_tokens(const Routing& routing) {
  const int64_t* offsets = routing.offsets.data_ptr<int64_t>();
  const bool* is_valid = routing.valid.defined() ? routing.valid.data_ptr<bool>() : nullptr;
  int64_t empty = 0;
  for (int64_t t = 0; t < routing.tokens(); ++t) {
    if ((!is_valid || is_valid[t]) && offsets[t] == offsets[t + 1]) ++empty;
  }
  return empty;
}

}  // namespace

int64_t Routing::valid_tokens() const {
  return valid.defined() ? valid.sum().item<int64_t>() : tokens();
}

torch::Tensor Routing::load() const {
  auto counts = torch::zeros({experts}, torch::kInt64);
  int64_t* count = counts.data_ptr<int64_t>();
  const int32_t* id = expert.data_ptr<int32_t>();
  for (int64_t p = 0; p < pairs(); ++p) ++count[id[p]];
  return counts;
}

Routing Routing::detach() const {
  Routing copy = *this;
  for (auto* tensor : {&copy.weight, &copy.logits, &copy.probs, &copy.state}) {
    if (tensor->defined()) *tensor = tensor->detach();
  }
  return copy;
}

RoutingStats stats_of(const Routing& routing) {
  const auto counts = routing.load();
  const int64_t* count = counts.data_ptr<int64_t>();
  const auto pairs = static_cast<double>(routing.pairs());
  const auto valid = static_cast<double>(routing.valid_tokens());
  RoutingStats stats{.dropped = routing.dropped, .null = routing.null};
  for (int64_t e = 0; e < routing.experts; ++e) {
    stats.load.push_back(pairs > 0 ? static_cast<double>(count[e]) / pairs : 0);
  }
  if (pairs > 0) {
    const double peak = *std::max_element(stats.load.begin(), stats.load.end());
    stats.max_over_mean_load = peak * static_cast<double>(routing.experts);
  }
  if (valid > 0) {
    stats.mean_k = pairs / valid;
    stats.share_empty = static_cast<double>(empty_tokens(routing)) / valid;
  }
  if (routing.probs.defined()) stats.entropy = mean_entropy(routing);
  return stats;
}

Routing routing_from_dense(int64_t experts, const torch::Tensor& indices,
                           const torch::Tensor& weights, const torch::Tensor& valid) {
  check_selection(indices, weights, valid);
  const auto ids = indices.to(torch::kInt32).contiguous();
  const auto mask = valid.defined() ? valid.to(torch::kBool).contiguous() : valid;
  auto offsets = torch::empty({ids.size(0) + 1}, torch::kInt64);
  Stored stored = stored_slots(ids, experts, mask, offsets.data_ptr<int64_t>());
  Routing routing{.experts = experts, .offsets = offsets, .valid = mask, .null = stored.null};
  routing.expert = ids.reshape(-1);
  routing.weight = weights.reshape(-1);
  if (static_cast<int64_t>(stored.slots.size()) < ids.numel()) {
    const auto slots = torch::tensor(stored.slots, torch::kInt64);
    routing.expert = routing.expert.index_select(0, slots);
    routing.weight = routing.weight.index_select(0, slots);
  }
  return routing;
}

}  // namespace cadre
