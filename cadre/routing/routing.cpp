#include "cadre/routing/routing.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/routing/selection.h"

namespace cadre {
namespace {

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
  for (auto* tensor : {&copy.weight, &copy.logits, &copy.probs, &copy.scores, &copy.state}) {
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
  if (indices.dim() != 2 || indices.sizes() != weights.sizes()) {
    throw UsageError("routing: indices and weights must both be [tokens, k]");
  }
  const auto mask = valid.defined() ? valid.to(torch::kBool).contiguous() : valid;
  const Rows rows = rows_of(indices, experts, mask);
  auto kept = weights.reshape(-1);
  if (rows.ids.size(0) < indices.numel()) {
    auto keep = indices < experts;
    if (mask.defined()) keep = keep & mask.unsqueeze(1);
    kept = kept.index_select(0, keep.reshape(-1).nonzero().view(-1));
  }
  return routing_of(experts, rows, kept, {}, {}, mask);
}

}  // namespace cadre
