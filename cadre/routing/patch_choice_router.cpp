#include "cadre/routing/patch_choice_router.h"

#include <algorithm>
#include <cmath>

#include "cadre/base/error.h"
#include "cadre/nn/linear.h"
#include "cadre/routing/affinity.h"
#include "cadre/routing/expert_side.h"

namespace cadre {
namespace {

void check(int64_t k, double share, int64_t experts) {
  check_router_k(k, experts);
  if (!(share > 0 && share <= 1)) {
    throw UsageError("router: an expert's share of patches is {}, must be in (0, 1]", share);
  }
}

/// The patches of a batch: their tokens, and which patches belong to one sequence.
struct Patches {
  TokenGroups tokens;
  TokenGroups sequences;
};

Patches cut(const TokenGroups& sequences, int64_t length) {
  Patches patches;
  for (const auto& sequence : sequences) {
    auto& members = patches.sequences.emplace_back();
    for (auto begin = sequence.begin(); begin < sequence.end();) {
      const auto end = begin + std::min<int64_t>(length, sequence.end() - begin);
      members.push_back(static_cast<int64_t>(patches.tokens.size()));
      patches.tokens.emplace_back(begin, end);
      begin = end;
    }
  }
  return patches;
}

/// Mean of each patch's rows of gates [T, E].
torch::Tensor patch_means(const torch::Tensor& gates, const TokenGroups& patches) {
  const int64_t experts = gates.size(1);
  auto means = torch::zeros({static_cast<int64_t>(patches.size()), experts});
  for (size_t i = 0; i < patches.size(); ++i) {
    float* mean = means.data_ptr<float>() + static_cast<int64_t>(i) * experts;
    for (const int64_t t : patches[i]) {
      const float* gate = gates.data_ptr<float>() + t * experts;
      for (int64_t e = 0; e < experts; ++e) {
        mean[e] += gate[e] / static_cast<float>(patches[i].size());
      }
    }
  }
  return means;
}

/// selected [T, E] from the selection of patches.
torch::Tensor spread(const torch::Tensor& of_patches, const TokenGroups& patches, int64_t tokens) {
  const int64_t experts = of_patches.size(1);
  auto selected = torch::zeros({tokens, experts}, torch::kBool);
  const bool* from = of_patches.data_ptr<bool>();
  for (size_t i = 0; i < patches.size(); ++i) {
    for (const int64_t t : patches[i]) {
      std::copy_n(from + static_cast<int64_t>(i) * experts, experts,
                  selected.data_ptr<bool>() + t * experts);
    }
  }
  return selected;
}

}  // namespace

PatchChoiceRouter::PatchChoiceRouter(int64_t hidden, int64_t experts, const PatchChoice& options)
    : options_(options) {
  check_router_sizes(hidden, experts);
  check(options.k, options.share, experts);
  if (options.patch < 1) {
    throw UsageError("router: patches of {} tokens, must be at least 1", options.patch);
  }
  weight = register_parameter("weight", initial_gate(experts, hidden, options.init_std));
  bias = register_parameter("bias", torch::zeros({experts}));
}

Routing PatchChoiceRouter::route(const RouteInput& input) {
  const int64_t k = input.knobs.k.value_or(options_.k);
  const double share = input.knobs.capacity_factor.value_or(options_.share);
  check(k, share, experts());
  check_router_input(input, weight.size(1));
  const auto logits = cadre::linear(input.hidden.to(torch::kFloat32), weight, bias);
  check_finite_logits(logits, input.layer);
  const auto probs = torch::softmax(logits, 1);
  const auto kept =
      torch::zeros_like(probs).scatter_(1, row_top_k(probs, k).to(torch::kInt64), 1.0);
  const auto gates = probs * kept;

  const auto valid = valid_tokens_of(input);
  const int64_t tokens = logits.size(0);
  const auto patches = cut(group_by_sequence(tokens, input.sequence, valid), options_.patch);
  const auto scores = gates.detach().contiguous();
  const auto taken =
      take_best(patch_means(scores, patches.tokens), patches.sequences, [share](int64_t count) {
        return static_cast<int64_t>(std::ceil(share * static_cast<double>(count)));
      });
  auto selected = spread(taken, patches.tokens, tokens);
  if (options_.short_lists == ShortLists::kDrop) selected = selected.logical_and(kept > 0);
  Routing routing = routing_from_mask(selected, scores, gates, valid);
  routing.logits = logits;
  routing.probs = probs;
  return routing;
}

}  // namespace cadre
