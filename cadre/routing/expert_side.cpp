#include "cadre/routing/expert_side.h"

#include <algorithm>
#include <map>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/kernels/top_k.h"

namespace cadre {
namespace {

constexpr int64_t kExpertGrain = 8;

void check_mask(const torch::Tensor& mask, int64_t tokens, const char* what) {
  if (!mask.defined() || (mask.dim() == 1 && mask.size(0) == tokens)) return;
  throw UsageError("router: {} must be [{}], one for each token", what, tokens);
}

/// Columns of scores [T, E] at the group's rows as [E, group size].
torch::Tensor columns_of(const torch::Tensor& scores, const std::vector<int64_t>& group) {
  const int64_t experts = scores.size(1), size = static_cast<int64_t>(group.size());
  auto columns = torch::empty({experts, size});
  const float* score = scores.data_ptr<float>();
  float* column = columns.data_ptr<float>();
  parallel_for(experts, kExpertGrain, [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) {
      for (int64_t i = 0; i < size; ++i) column[e * size + i] = score[group[i] * experts + e];
    }
  });
  return columns;
}

}  // namespace

TokenGroups group_by_sequence(int64_t tokens, const torch::Tensor& sequence,
                              const torch::Tensor& valid) {
  check_mask(sequence, tokens, "sequence ids");
  check_mask(valid, tokens, "the padding mask");
  const auto ids = sequence.defined() ? sequence.to(torch::kInt64).contiguous() : sequence;
  const auto mask = valid.defined() ? valid.to(torch::kBool).contiguous() : valid;
  std::map<int64_t, std::vector<int64_t>> groups;
  for (int64_t t = 0; t < tokens; ++t) {
    if (mask.defined() && !mask.data_ptr<bool>()[t]) continue;
    groups[ids.defined() ? ids.data_ptr<int64_t>()[t] : 0].push_back(t);
  }
  TokenGroups result;
  for (auto& [id, group] : groups) result.push_back(std::move(group));
  return result;
}

torch::Tensor take_best(const torch::Tensor& scores, const TokenGroups& groups,
                        const std::function<int64_t(int64_t)>& capacity) {
  const int64_t experts = scores.size(1);
  const auto dense = scores.detach().to(torch::kFloat32).contiguous();
  auto selected = torch::zeros(scores.sizes(), torch::kBool);
  bool* taken = selected.data_ptr<bool>();
  for (const auto& group : groups) {
    const auto size = static_cast<int64_t>(group.size());
    const int64_t count = std::clamp<int64_t>(capacity(size), 0, size);
    const auto columns = columns_of(dense, group);
    auto best = torch::empty({experts, count}, torch::kInt32);
    kernels::top_k(columns.data_ptr<float>(), experts, size, count, best.data_ptr<int32_t>(),
                   nullptr);
    const int32_t* index = best.data_ptr<int32_t>();
    for (int64_t i = 0; i < experts * count; ++i) {
      taken[group[index[i]] * experts + i / count] = true;
    }
  }
  return selected;
}

Routing routing_from_mask(const torch::Tensor& selected, const torch::Tensor& scores,
                          const torch::Tensor& weights, const torch::Tensor& valid) {
  if (selected.dim() != 2 || selected.sizes() != weights.sizes() ||
      selected.sizes() != scores.sizes()) {
    throw UsageError("routing: selection, scores and weights must all be [tokens, experts]");
  }
  const int64_t tokens = selected.size(0), experts = selected.size(1);
  check_mask(valid, tokens, "the mask of valid tokens");
  const auto chosen = selected.contiguous();
  const auto mask = valid.defined() ? valid.to(torch::kBool).contiguous() : valid;
  const auto dense = scores.detach().to(torch::kFloat32).contiguous();
  Routing routing{.experts = experts, .offsets = torch::empty({tokens + 1}, torch::kInt64)};
  int64_t* offset = routing.offsets.data_ptr<int64_t>();
  std::vector<int64_t> slots;
  offset[0] = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    const bool counts = !mask.defined() || mask.data_ptr<bool>()[t];
    for (int64_t slot = t * experts; counts && slot < (t + 1) * experts; ++slot) {
      if (chosen.data_ptr<bool>()[slot]) slots.push_back(slot);
    }
    offset[t + 1] = static_cast<int64_t>(slots.size());
    const float* score = dense.data_ptr<float>();
    std::stable_sort(slots.begin() + offset[t], slots.end(),
                     [score](int64_t a, int64_t b) { return score[a] > score[b]; });
  }
  const auto index = torch::tensor(slots, torch::kInt64);
  routing.expert = index.remainder(std::max<int64_t>(experts, 1)).to(torch::kInt32);
  routing.weight = weights.reshape(-1).index_select(0, index);
  routing.valid = mask;
  return routing;
}

}  // namespace cadre
