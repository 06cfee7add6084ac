#pragma once

/// One pass of tokens through all layers.

#include <functional>
#include <span>
#include <vector>

#include "cadre/engine/attention_layer.h"
#include "cadre/engine/moe_layer.h"
#include "cadre/engine/weights.h"
#include "cadre/formats/tokenizer.h"

namespace cadre::engine {

class Forward {
 public:
  using LayerListener = std::function<void(int64_t layer, int64_t row, std::span<const int32_t>,
                                           std::span<const float>)>;

  /// The normalised hidden states [tokens, hidden] that a layer's feed-forward (and its router)
  /// sees.
  using HiddenListener = std::function<void(int64_t layer, const float* hidden, int64_t tokens)>;

  Forward(Team& team, const ModelSpec& spec, const ModelWeights& weights, ExpertProvider& provider);

  HiddenListener on_hidden;  ///< may be empty

  /// Runs tokens (one a row of the batch), whose caches have room. Logits of the rows `wanted`
  /// (rising) are written to logits [wanted, V].
  void run(Batch& batch, std::span<const TokenId> tokens, std::span<const int64_t> wanted,
           const RoutingOverrides& overrides, const LayerListener& listener, float* logits);

 private:
  void embed(std::span<const TokenId> tokens);
  void normalize(const Norm& norm, int64_t tokens);
  void run_attention(int64_t layer, const Batch& batch);
  void run_feed_forward(int64_t layer, std::span<const TokenId> ids,
                        const RoutingOverrides& overrides, const LayerListener& listener);
  void add_residual(const float* branch, int64_t tokens);
  void write_logits(std::span<const int64_t> wanted, float* logits);

  Team& team_;
  const ModelSpec& spec_;
  const ModelWeights& weights_;
  Rope rope_;
  AttentionLayer attention_;
  MoeLayer moe_;
  std::vector<Router> routers_;    ///< [layers], unused in dense ones
  std::vector<float> x_, branch_;  ///< the residual stream and what is added to it
  Activations normal_, attended_;
};

}  // namespace cadre::engine
