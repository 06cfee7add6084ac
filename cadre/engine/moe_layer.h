#pragma once

/// A layer of routed experts, with its shared expert: route, group the tokens by expert, compute
/// experts as the provider brings them.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "cadre/engine/expert_provider.h"
#include "cadre/engine/feed_forward.h"
#include "cadre/engine/low_rank_experts.h"
#include "cadre/engine/router.h"
#include "cadre/engine/router_state.h"
#include "cadre/formats/tokenizer.h"

namespace cadre::engine {

/// What a token was routed to, best first; -1 where it has fewer.
using RouteListener = std::function<void(int64_t row, std::span<const int32_t> experts,
                                         std::span<const float> weights)>;

class MoeLayer {
 public:
  MoeLayer(Team& team, const ModelSpec& spec, ExpertProvider& provider);

  /// Adds nothing to out [tokens, hidden] but overwrites it. x: normalised rows, quantised; ids:
  /// the tokens, for routers that go by them. Layers of a pass must come from the lowest on. Throws
  /// UsageError for an impossible number of experts, Error for logits that are not finite, IoError.
  void run(int64_t layer, const LayerWeights& weights, const Router& router,
           const RoutingOverrides& overrides, const RouteListener& listener, Activations& x,
           std::span<const TokenId> ids, float* out);
  /// A dense layer's feed-forward.
  void run_dense(const FeedForwardWeights& weights, const Activations& x, int64_t tokens,
                 float* out);

 private:
  void route(int64_t layer, const LayerWeights& weights, const Router& router,
             const RouteChoice& choice, const Activations& x, std::span<const TokenId> ids);
  void look_up(const std::vector<int32_t>& table, int64_t k, std::span<const TokenId> ids);
  void share_experts(const std::vector<int32_t>& map, int64_t k);
  void run_low_rank(const LayerWeights& weights, Activations& x, float* out);
  void skip_cold(int64_t layer, float share, int64_t k);
  void group_by_expert(int64_t tokens, int64_t k);
  void run_shared(const LayerWeights& weights, Activations& x, int64_t tokens);
  void run_experts(int64_t layer, const LayerWeights& weights);
  void run_in_order(int64_t layer, const LayerWeights& weights, std::span<const int32_t> ready);
  void fill_job(int64_t layer, const LayerWeights& weights, int32_t index);
  void release(int64_t layer, int32_t index);
  kernels::PanelExpert dense_expert(const FeedForwardWeights& weights) const;

  Team& team_;
  const ModelSpec& spec_;
  ExpertProvider& provider_;
  FeedForward feed_forward_;
  LowRankFeedForward low_rank_;
  RouterState router_state_;
  std::vector<float> logits_;         ///< [tokens, E + null experts]
  std::vector<int32_t> chosen_;       ///< [tokens, k]
  std::vector<float> weights_;        ///< [tokens, k]
  std::vector<int32_t> pair_tokens_;  ///< by expert
  std::vector<float> pair_weights_, gates_;
  std::vector<int32_t> experts_;       ///< those needed, rising
  std::vector<float> expert_weights_;  ///< summed
  std::vector<FeedForwardJob> jobs_;   ///< one an expert needed
};

}  // namespace cadre::engine
