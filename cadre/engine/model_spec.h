#pragma once

/// Everything the one generic block needs to know about a model: read from GGUF keys or config.json
/// by a declarative row per architecture (architectures.h).

#include <cstdint>
#include <string>
#include <vector>

#include "cadre/formats/router_config.h"

namespace cadre::engine {

/// Element i pairs with i + 1, or with i + dim / 2.
enum class RopeLayout { kNone, kAdjacent, kHalves };
/// kSparseMixer: each expert in turn, weighted by a softmax over those within 2 jitter of the best
/// (Phi-3.5-MoE).
enum class Gating { kSoftmax, kSigmoid, kSoftmaxOfSelected, kSparseMixer };
enum class NormKind { kRms, kLayer };
enum class QkNorm { kNone, kFullWidth, kPerHead };
/// kClampedSwiGlu: gpt-oss.
enum class Activation { kSwiGlu, kClampedSwiGlu, kGeluGlu };
/// qwen2moe multiplies its shared expert by sigmoid(gate . x).
enum class SharedGate { kNone, kSigmoid };

struct RopeSpec {
  RopeLayout layout = RopeLayout::kHalves;
  int64_t dimension = 0;  ///< of each head's first (latent attention: last) elements
  float base = 10000.0F;
  /// kLlama3: wavelengths beyond the original context are stretched, those near it in part.
  enum class Scaling { kNone, kLinear, kYarn, kLlama3 } scaling = Scaling::kNone;
  float factor = 1.0F;
  int64_t original_context = 0;
  float beta_fast = 32.0F, beta_slow = 1.0F;    ///< kYarn
  float low_frequency = 1, high_frequency = 4;  ///< kLlama3
  float attention_factor = 1.0F;                ///< multiplies cos and sin
};

/// kPrefix: the most probable experts up to the one that takes the sum past p (top_p routers).
enum class Selection { kTopK, kPrefix };

/// Where scores come from: one matrix on the hidden state, a recurrent cell over depth (RMoE), or
/// nothing, because a table says each token id's expert (hash, stochastic experts).
enum class Scorer { kMatrix, kRecurrent, kTable };

struct RouterSpec {
  Scorer scorer = Scorer::kMatrix;
  int64_t state_width = 0;  ///< kRecurrent
  Gating gating = Gating::kSoftmax;
  bool normalize = false;  ///< selected weights divided by their sum
  float scale = 1.0F;
  int64_t groups = 1, groups_used = 1;
  Selection selection = Selection::kTopK;
  float p = 0.0F;     ///< kPrefix
  int64_t slots = 0;  ///< chosen ids a token, nulls among them; 0 = the model's experts_used
  int64_t nulls = 0;  ///< ids from the number of experts on: they add nothing
  bool keeps_nulls_share = false;  ///< the sum that divides weights has the chosen nulls in it
};

/// DeepSeek-V2's multi-head latent attention (2024); unused when kv_rank is 0.
struct LatentSpec {
  int64_t q_rank = 0, kv_rank = 0, rope_width = 0, nope_width = 0, value_width = 0;
};

struct ModelSpec {
  std::string architecture, name;
  int64_t vocabulary = 0, hidden = 0, layers = 0, context = 0;
  int64_t heads = 0, kv_heads = 0, key_width = 0, value_width = 0;
  int64_t intermediate = 0;
  int64_t leading_dense_layers = 0;
  int64_t experts = 0, experts_used = 0, expert_intermediate = 0;
  int64_t shared_intermediate = 0;  ///< of all shared experts fused; 0 = none
  NormKind norm = NormKind::kRms;
  float norm_eps = 1e-5F;
  QkNorm qk_norm = QkNorm::kNone;
  Activation activation = Activation::kSwiGlu;
  SharedGate shared_gate = SharedGate::kNone;
  RopeSpec rope;
  RouterSpec router;
  RouterConfig router_config;  ///< as "cadre" of config.json says it; standard = the architecture's
  LatentSpec latent;
  float attention_scale = 0.0F;       ///< what scores are multiplied by
  float clamp_qkv = 0.0F;             ///< 0 = none
  int64_t sliding_window = 0;         ///< 0 = none
  int64_t sliding_every = 1;          ///< of how many layers all but the last slide (gpt-oss: 2)
  std::vector<char> low_rank_layers;  ///< [layers]: experts as low rank + rows; empty = none
  float logit_scale = 1.0F, residual_scale = 1.0F, embedding_scale = 1.0F;  ///< factors

  bool has_experts(int64_t layer) const { return experts > 0 && layer >= leading_dense_layers; }
  /// Whether a layer's experts are whole matrices, as providers hold them.
  bool has_whole_experts(int64_t layer) const {
    return has_experts(layer) &&
           (low_rank_layers.empty() || low_rank_layers[static_cast<size_t>(layer)] == 0);
  }
  bool slides(int64_t layer) const {
    return sliding_window > 0 && (sliding_every == 1 || layer % sliding_every != sliding_every - 1);
  }
  /// What one cached token holds in a layer: latent attention caches one "head" for all.
  int64_t cached_heads() const { return latent.kv_rank > 0 ? 1 : kv_heads; }
  int64_t cached_key_width() const {
    return latent.kv_rank > 0 ? latent.kv_rank + latent.rope_width : key_width;
  }
  int64_t cached_value_width() const { return latent.kv_rank > 0 ? latent.kv_rank : value_width; }
};

}  // namespace cadre::engine
