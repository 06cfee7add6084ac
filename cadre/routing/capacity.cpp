#include "cadre/routing/capacity.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace cadre {
namespace {

std::vector<float> pair_scores(const Routing& routing) {
  const auto probs = routing.probs.detach().contiguous();
  const int64_t* offset = routing.offsets.data_ptr<int64_t>();
  const int32_t* expert = routing.expert.data_ptr<int32_t>();
  std::vector<float> score(routing.pairs());
  for (int64_t t = 0; t < routing.tokens(); ++t) {
    const float* row = probs.data_ptr<float>() + t * probs.size(1);
    for (int64_t p = offset[t]; p < offset[t + 1]; ++p) score[p] = row[expert[p]];
  }
  return score;
}

/// Pairs in the order in which experts admit them.
std::vector<int64_t> admission_order(const Routing& routing, DropOrder order) {
  std::vector<int64_t> pair(routing.pairs());
  std::iota(pair.begin(), pair.end(), 0);
  if (order == DropOrder::kScore) {
    const auto score = pair_scores(routing);
    std::stable_sort(pair.begin(), pair.end(),
                     [&score](int64_t a, int64_t b) { return score[a] > score[b]; });
  }
  return pair;
}

std::vector<bool> admitted(const Routing& routing, int64_t capacity,
                           const std::vector<int64_t>& order) {
  const int32_t* expert = routing.expert.data_ptr<int32_t>();
  std::vector<int64_t> taken(routing.experts, 0);
  std::vector<bool> keep(order.size());
  for (const int64_t pair : order) keep[pair] = taken[expert[pair]]++ < capacity;
  return keep;
}

}  // namespace

int64_t expert_capacity(double factor, int64_t k, int64_t tokens, int64_t experts) {
  const double share = static_cast<double>(k * tokens) / static_cast<double>(experts);
  return static_cast<int64_t>(std::ceil(factor * share));
}

Routing drop_over_capacity(const Routing& routing, int64_t capacity, DropOrder order) {
  const auto keep = admitted(routing, capacity, admission_order(routing, order));
  Routing kept = routing;
  kept.offsets = torch::empty_like(routing.offsets);
  int64_t* new_offset = kept.offsets.data_ptr<int64_t>();
  const int64_t* offset = routing.offsets.data_ptr<int64_t>();
  std::vector<int64_t> pairs;
  new_offset[0] = 0;
  for (int64_t t = 0; t < routing.tokens(); ++t) {
    for (int64_t p = offset[t]; p < offset[t + 1]; ++p) {
      if (keep[p]) pairs.push_back(p);
    }
    new_offset[t + 1] = static_cast<int64_t>(pairs.size());
  }
  const auto index = torch::tensor(pairs, torch::kInt64);
  kept.expert = routing.expert.index_select(0, index);
  kept.weight = routing.weight.index_select(0, index);
  kept.dropped += routing.pairs() - kept.pairs();
  return kept;
}

}  // namespace cadre
