#pragma once

/// Everything the one generic block needs to know about a model: read from GGUF keys or config.json
/// by a declarative row per architecture (architectures.h).

#include <cstdint>
#include <string>
#include <vector>

namespace cadre::engine {

enum class RopeLayout {
  kNone,
  kAdjacent,
  kHalves
};  ///< element i pairs with i + 1, or with i + dim / 2
enum class Gating { kSoftmax, kSigmoid, kSoftmaxOfSelected };
enum class NormKind { kRms, kLayer };
enum class QkNorm { kNone, kFullWidth, kPerHead };
enum class Activation { kSwiGlu, kClampedSwiGlu, kGeluGlu };  ///< kClampedSwiGlu: gpt-oss
enum class SharedGate {
  kNone,
  kSigmoid
};  ///< qwen2moe multiplies its shared expert by sigmoid(gate . x)

struct RopeSpec {
  RopeLayout layout = RopeLayout::kHalves;
  int64_t dimension = 0;
  float base = 10000.0f;
  enum class Scaling { kNone, kLinear, kYarn } scaling = Scaling::kNone;
  float factor = 1.0f;
  int64_t original_context = 0;
  float yarn_log_multiplier = 0.0f;
  std::vector<float> frequency_factors;  ///< per pair, when the file has them
  float attention_factor = 1.0f;         ///< multiplies cos and sin
};

struct RouterSpec {
  Gating gating = Gating::kSoftmax;
  bool normalize = false;  ///< selected weights divided by their sum
  float scale = 1.0f;
  int64_t groups = 1, groups_used = 1;
};

/// DeepSeek-V2's multi-head latent attention; unused when kv_rank is 0.
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
  float norm_eps = 1e-5f;
  QkNorm qk_norm = QkNorm::kNone;
  Activation activation = Activation::kSwiGlu;
  SharedGate shared_gate = SharedGate::kNone;
  RopeSpec rope;
  RouterSpec router;
  LatentSpec latent;
  float attention_scale = 0.0f;  ///< 0 = 1 / sqrt(key_width)
  float clamp_qkv = 0.0f;        ///< 0 = none
  int64_t sliding_window = 0;    ///< 0 = none
  int64_t sliding_every = 1;     ///< of how many layers all but the last slide (gpt-oss: 2)
  float logit_scale = 1.0f, residual_scale = 1.0f, embedding_scale = 1.0f;

  bool has_experts(int64_t layer) const { return experts > 0 && layer >= leading_dense_layers; }
  bool slides(int64_t layer) const {
    return sliding_window > 0 && (sliding_every == 1 || layer % sliding_every != sliding_every - 1);
  }
};

}  // namespace cadre::engine
