#include "cadre/routing/hash_router.h"

#include <algorithm>
#include <functional>
#include <numeric>
#include <queue>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/nn/tensor_check.h"
#include "cadre/routing/affinity.h"

namespace cadre {
namespace {

constexpr uint64_t kHashStream = 0x68617368;  // "hash"

void check(int64_t experts, const Hash& options) {
  check_router_sizes(1, experts);
  if (options.vocabulary < 1) {
    throw UsageError("hash router: the vocabulary holds {} ids, must be at least 1",
                     options.vocabulary);
  }
  const auto& counts = options.frequencies;
  if (!counts.empty() && static_cast<int64_t>(counts.size()) != options.vocabulary) {
    throw UsageError("hash router: {} frequencies for a vocabulary of {} ids", counts.size(),
                     options.vocabulary);
  }
  if (std::any_of(counts.begin(), counts.end(), [](int64_t n) { return n < 0; })) {
    throw UsageError("hash router: a frequency is negative");
  }
}

}  // namespace

std::vector<int64_t> balanced_hash(int64_t experts, const Hash& options) {
  check(experts, options);
  std::vector<int64_t> ids(options.vocabulary);
  std::iota(ids.begin(), ids.end(), 0);
  Random random(options.seed, {kHashStream});
  for (size_t i = ids.size(); i > 1; --i) std::swap(ids[i - 1], ids[random.below(i)]);
  const auto& counts = options.frequencies;
  if (!counts.empty()) {
    std::stable_sort(ids.begin(), ids.end(),
                     [&counts](int64_t a, int64_t b) { return counts[a] > counts[b]; });
  }
  // (load, ids, expert): ids that never occur are dealt out evenly too.
  using Place = std::tuple<int64_t, int64_t, int64_t>;
  std::priority_queue<Place, std::vector<Place>, std::greater<>> places;
  for (int64_t e = 0; e < experts; ++e) places.push({0, 0, e});
  std::vector<int64_t> table(options.vocabulary);
  for (const int64_t id : ids) {
    const auto [load, members, expert] = places.top();
    places.pop();
    table[id] = expert;
    places.push({load + (counts.empty() ? 1 : counts[id]), members + 1, expert});
  }
  return table;
}

HashRouter::HashRouter(int64_t experts, const Hash& options) : experts_(experts) {
  check(experts, options);
  table = register_buffer("table", torch::empty({options.vocabulary}));
  assign(options);
}

void HashRouter::assign(const Hash& options) {
  if (options.vocabulary != table.size(0)) {
    throw UsageError("hash router: a table of {} ids cannot replace one of {}", options.vocabulary,
                     table.size(0));
  }
  table.copy_(torch::tensor(balanced_hash(experts_, options), torch::kInt64));
}

Routing HashRouter::route(const RouteInput& input) {
  const int64_t tokens = input.hidden.size(0);
  if (!input.token_ids.defined() || input.token_ids.numel() != tokens) {
    throw UsageError("hash router of layer {}: it needs the {} tokens' ids", input.layer, tokens);
  }
  const auto ids = dense_ids(input.token_ids.reshape(-1), table.size(0), "hash router's token ids");
  const auto experts = table.index_select(0, ids).to(torch::kInt64).unsqueeze(1);
  Routing routing =
      routing_from_dense(experts_, experts, torch::ones({tokens, 1}), valid_tokens_of(input));
  routing.logits = torch::zeros({1, 1}).expand({tokens, experts_});
  routing.probs = torch::zeros({tokens, experts_}).scatter_(1, experts, 1.0);
  return routing;
}

}  // namespace cadre
