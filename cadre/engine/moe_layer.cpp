#include "cadre/engine/moe_layer.h"

#include <algorithm>
#include <array>

#include "cadre/base/error.h"
#include "cadre/engine/vector_math.h"

namespace cadre::engine {
namespace {

constexpr int64_t kTokenGrain = 8;
/// Results of pairs are kept, so that experts may run as they arrive, up to this many bytes; beyond
/// (prefill) experts that arrive early wait for their turn.
constexpr int64_t kKeptBytes = 16 << 20;

kernels::GluKind glu_of(Activation activation) {
  switch (activation) {
    case Activation::kSwiGlu:
      return kernels::GluKind::kSwiGlu;
    case Activation::kClampedSwiGlu:
      return kernels::GluKind::kClampedSwiGlu;
    case Activation::kGeluGlu:
      return kernels::GluKind::kGeluGlu;
  }
  return kernels::GluKind::kSwiGlu;
}

const float* row_of(const std::vector<float>& rows, int64_t row, int64_t width) {
  return rows.empty() ? nullptr : rows.data() + row * width;
}

/// Ends the layer whatever happens in it.
class LayerScope {
 public:
  LayerScope(ExpertProvider& provider, int64_t layer) : provider_(provider), layer_(layer) {}
  ~LayerScope() { provider_.end_layer(layer_); }
  LayerScope(const LayerScope&) = delete;
  LayerScope& operator=(const LayerScope&) = delete;

 private:
  ExpertProvider& provider_;
  int64_t layer_;
};

}  // namespace

MoeLayer::MoeLayer(Team& team, const ModelSpec& spec, ExpertProvider& provider)
    : team_(team),
      spec_(spec),
      provider_(provider),
      feed_forward_(team),
      low_rank_(team, glu_of(spec.activation)),
      router_state_(team, spec) {}

kernels::PanelExpert MoeLayer::dense_expert(const FeedForwardWeights& weights) const {
  return {.gate = weights.gate,
          .up = weights.up,
          .down = weights.down,
          .glu = glu_of(spec_.activation)};
}

void MoeLayer::run_dense(const FeedForwardWeights& weights, const Activations& x, int64_t tokens,
                         float* out) {
  feed_forward_.begin(x, tokens, spec_.hidden, out);
  feed_forward_.begin_group(tokens, weights.gate.rows);
  const FeedForwardJob job = {.expert = dense_expert(weights), .count = tokens};
  feed_forward_.run({&job, 1});
}

void MoeLayer::run(int64_t layer, const LayerWeights& weights, const Router& router,
                   const RoutingOverrides& overrides, const RouteListener& listener, Activations& x,
                   std::span<const TokenId> ids, float* out) {
  const auto tokens = static_cast<int64_t>(ids.size());
  const int64_t slots = spec_.router.slots > 0 ? spec_.router.slots : spec_.experts_used;
  const RouteChoice choice = {overrides.experts_per_token.value_or(slots), overrides.top_p,
                              overrides.null_bias};
  if (choice.k < 1 || choice.k > router.reachable()) {
    throw UsageError("experts per token is {}, must be from 1 to {}", choice.k, router.reachable());
  }
  route(layer, weights, router, choice, x, ids);
  if (!weights.expert_map.empty()) share_experts(weights.expert_map, choice.k);
  if (overrides.skip_cold > 0 && weights.low_rank.empty())
    skip_cold(layer, overrides.skip_cold, choice.k);
  for (int64_t t = 0; listener && t < tokens; ++t) {
    const auto at = static_cast<size_t>(t * choice.k), k = static_cast<size_t>(choice.k);
    listener(t, std::span(chosen_).subspan(at, k), std::span(weights_).subspan(at, k));
  }
  group_by_expert(tokens, choice.k);
  feed_forward_.begin(x, tokens, spec_.hidden, out);
  if (!weights.low_rank.empty()) {
    run_shared(weights, x, tokens);
    return run_low_rank(weights, x, out);
  }
  provider_.begin_layer(layer, experts_, expert_weights_, tokens);
  const LayerScope scope(provider_, layer);
  provider_.observe(layer, x.row(0), tokens, chosen_);
  run_shared(weights, x, tokens);
  if (!jobs_.empty()) run_experts(layer, weights);
}

void MoeLayer::route(int64_t layer, const LayerWeights& weights, const Router& router,
                     const RouteChoice& choice, const Activations& x,
                     std::span<const TokenId> ids) {
  const int64_t columns = router.columns();
  const auto tokens = static_cast<int64_t>(ids.size());
  chosen_.resize(static_cast<size_t>(tokens * choice.k));
  weights_.resize(static_cast<size_t>(tokens * choice.k));
  if (!weights.router_table.empty()) return look_up(weights.router_table, choice.k, ids);
  logits_.resize(static_cast<size_t>(tokens * columns));
  const bool recurrent = spec_.router.scorer == Scorer::kRecurrent;
  const Activations& seen = recurrent ? router_state_.advance(layer, weights, x, tokens) : x;
  run_products(team_, std::array{Product{&weights.router, &seen, logits_.data(), columns}}, tokens);
  if (!all_finite(logits_.data(), tokens * columns)) {
    throw Error(
        "the router of layer {} got values that are not finite: the weights are damaged, "
        "or do not belong together",
        layer);
  }
  for_ranges(team_, tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      router.choose(choice, logits_.data() + t * columns, chosen_.data() + t * choice.k,
                    weights_.data() + t * choice.k);
    }
  });
}

void MoeLayer::look_up(const std::vector<int32_t>& table, int64_t k, std::span<const TokenId> ids) {
  std::fill(chosen_.begin(), chosen_.end(), -1);
  std::fill(weights_.begin(), weights_.end(), 0.0F);
  for (size_t t = 0; t < ids.size(); ++t) {
    const size_t id = table.size() == 1 ? 0 : static_cast<size_t>(ids[t]);
    chosen_[t * static_cast<size_t>(k)] = table[id];
    weights_[t * static_cast<size_t>(k)] = 1;
  }
}

/// Two of a token's experts may have become one: it runs once, with the sum of their weights.
void MoeLayer::share_experts(const std::vector<int32_t>& map, int64_t k) {
  for (size_t first = 0; first < chosen_.size(); first += static_cast<size_t>(k)) {
    const auto experts = std::span(chosen_).subspan(first, static_cast<size_t>(k));
    const auto weights = std::span(weights_).subspan(first, static_cast<size_t>(k));
    size_t kept = 0;
    for (size_t i = 0; i < experts.size() && experts[i] >= 0; ++i) {
      const int32_t shared = map[static_cast<size_t>(experts[i])];
      const auto at = static_cast<size_t>(
          std::find(experts.begin(), experts.begin() + static_cast<int64_t>(kept), shared) -
          experts.begin());
      const float weight = weights[i];
      if (at < kept) {
        weights[at] += weight;
        continue;
      }
      experts[kept] = shared;
      weights[kept++] = weight;
    }
    std::fill(experts.begin() + static_cast<int64_t>(kept), experts.end(), -1);
    std::fill(weights.begin() + static_cast<int64_t>(kept), weights.end(), 0.0F);
  }
}

void MoeLayer::run_low_rank(const LayerWeights& weights, Activations& x, float* out) {
  for (size_t i = 0; i < jobs_.size(); ++i) {
    low_rank_.run(weights.low_rank[static_cast<size_t>(experts_[i])], jobs_[i], x, out);
  }
}

void MoeLayer::skip_cold(int64_t layer, float share, int64_t k) {
  for (size_t first = 0; first < chosen_.size(); first += static_cast<size_t>(k)) {
    float total = 0;
    for (size_t i = first; i < first + static_cast<size_t>(k); ++i) total += weights_[i];
    const float least = share * total / static_cast<float>(k);
    for (size_t i = first; i < first + static_cast<size_t>(k); ++i) {
      if (chosen_[i] < 0 || weights_[i] >= least) continue;
      if (provider_.is_resident(layer, chosen_[i])) continue;
      chosen_[i] = -1;
      weights_[i] = 0;
    }
  }
}

/// Counting sort of the (token, expert) pairs by expert, tokens rising within.
void MoeLayer::group_by_expert(int64_t tokens, int64_t k) {
  std::vector<int64_t> starts(static_cast<size_t>(spec_.experts) + 1);
  for (const int32_t e : chosen_) {
    if (e >= 0) ++starts[static_cast<size_t>(e) + 1];
  }
  jobs_.clear();
  experts_.clear();
  for (int64_t e = 0; e < spec_.experts; ++e) {
    const auto at = static_cast<size_t>(e);
    const int64_t count = starts[at + 1];
    starts[at + 1] += starts[at];
    if (count == 0) continue;
    experts_.push_back(static_cast<int32_t>(e));
    jobs_.push_back({.count = count, .first_pair = starts[at]});
  }
  pair_tokens_.resize(static_cast<size_t>(starts.back()));
  pair_weights_.resize(static_cast<size_t>(starts.back()));
  for (int64_t i = 0; i < tokens * k; ++i) {
    const int32_t e = chosen_[static_cast<size_t>(i)];
    if (e < 0) continue;
    const auto pair = static_cast<size_t>(starts[static_cast<size_t>(e)]++);
    pair_tokens_[pair] = static_cast<int32_t>(i / k);
    pair_weights_[pair] = weights_[static_cast<size_t>(i)];
  }
  expert_weights_.assign(experts_.size(), 0);
  for (size_t i = 0; i < jobs_.size(); ++i) {
    jobs_[i].tokens = pair_tokens_.data() + jobs_[i].first_pair;
    jobs_[i].weights = pair_weights_.data() + jobs_[i].first_pair;
    for (int64_t p = 0; p < jobs_[i].count; ++p) expert_weights_[i] += jobs_[i].weights[p];
  }
}

void MoeLayer::run_shared(const LayerWeights& weights, Activations& x, int64_t tokens) {
  if (spec_.shared_intermediate == 0) return;
  FeedForwardJob job = {.expert = dense_expert(weights.dense), .count = tokens};
  if (!weights.shared_gate.empty()) {
    gates_.resize(static_cast<size_t>(tokens));
    for (int64_t t = 0; t < tokens; ++t) {
      gates_[static_cast<size_t>(t)] = dot(weights.shared_gate.data(), x.row(t), spec_.hidden);
    }
    sigmoid(gates_.data(), tokens);
    job.weights = gates_.data();
  }
  feed_forward_.begin_group(tokens, spec_.shared_intermediate);
  feed_forward_.run({&job, 1});
}

void MoeLayer::fill_job(int64_t layer, const LayerWeights& weights, int32_t index) {
  const int32_t e = experts_[static_cast<size_t>(index)];
  const ExpertPanels panels = provider_.panels(layer, e);
  jobs_[static_cast<size_t>(index)].expert = {
      .gate = panels.gate,
      .up = panels.up,
      .down = panels.down,
      .gate_bias = row_of(weights.gate_bias, e, spec_.expert_intermediate),
      .up_bias = row_of(weights.up_bias, e, spec_.expert_intermediate),
      .down_bias = row_of(weights.down_bias, e, spec_.hidden),
      .glu = glu_of(spec_.activation)};
}

void MoeLayer::release(int64_t layer, int32_t index) {
  provider_.release(layer, experts_[static_cast<size_t>(index)]);
}

void MoeLayer::run_experts(int64_t layer, const LayerWeights& weights) {
  std::span<const int32_t> ready = provider_.take_ready();
  for (const int32_t index : ready) fill_job(layer, weights, index);
  const auto pairs = static_cast<int64_t>(pair_tokens_.size());
  feed_forward_.begin_group(pairs, spec_.expert_intermediate);
  if (ready.size() == jobs_.size()) {
    feed_forward_.run(jobs_);
    for (const int32_t index : ready) release(layer, index);
    return;
  }
  if (pairs * spec_.hidden * static_cast<int64_t>(sizeof(float)) > kKeptBytes) {
    return run_in_order(layer, weights, ready);
  }
  std::vector<FeedForwardJob> batch;
  while (!ready.empty()) {
    batch.clear();
    for (const int32_t index : ready) {
      fill_job(layer, weights, index);
      batch.push_back(jobs_[static_cast<size_t>(index)]);
    }
    feed_forward_.run_and_keep(batch);
    for (const int32_t index : ready) release(layer, index);
    ready = provider_.take_ready();
  }
  feed_forward_.add_kept(jobs_);
}

void MoeLayer::run_in_order(int64_t layer, const LayerWeights& weights,
                            std::span<const int32_t> ready) {
  std::vector<char> here(jobs_.size());
  size_t done = 0;
  while (!ready.empty()) {
    for (const int32_t index : ready) {
      fill_job(layer, weights, index);
      here[static_cast<size_t>(index)] = 1;
    }
    size_t end = done;
    while (end < here.size() && here[end] != 0) ++end;
    if (end > done) feed_forward_.run(std::span(jobs_).subspan(done, end - done));
    for (; done < end; ++done) release(layer, static_cast<int32_t>(done));
    ready = provider_.take_ready();
  }
}

}  // namespace cadre::engine
