#pragma once

/// For tests: tiny models of every architecture with random weights, written as GGUF, and the same
/// computation in plain loops, from the papers' equations and with nothing of the engine's.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "cadre/formats/gguf_writer.h"
#include "cadre/formats/tokenizer.h"
#include "cadre/kernels/blocks.h"

namespace cadre::engine {

struct PlainTensor {
  std::vector<int64_t> shape;  ///< outermost first
  std::vector<float> values;
};

/// What the plain computation knows about a model: written down per architecture, not read from
/// keys.
struct PlainConfig {
  int64_t vocabulary = 96, hidden = 64, layers = 2, heads = 4, kv_heads = 2, head_width = 16;
  int64_t intermediate = 96, experts = 0, used = 0, expert_width = 32, shared_width = 0;
  int64_t dense_layers = 0;
  bool adjacent = false;  ///< rotary pairs are neighbours
  double rope_base = 10000, yarn_factor = 1, yarn_context = 0, yarn_cos_factor = 1;
  double attention_scale = 0;  ///< 0 = 1 / sqrt(width)
  bool layer_norm = false, full_qk_norm = false, head_qk_norm = false;
  enum class Gate { kSoftmax, kSigmoid, kSelected, kMixer } gate = Gate::kSoftmax;
  bool normalize = false;
  double router_scale = 1;
  int64_t groups = 1, groups_used = 1;
  bool shared_gate = false, clamped_glu = false;
  double clamp = 0, embedding_scale = 1, residual_scale = 1, logit_factor = 1;
  int64_t window = 0;  ///< of every second layer, beginning with the first
  int64_t q_rank = 0, kv_rank = 0, rope_width = 0, value_width = 0;  ///< latent attention
  std::string ffn_norm = "ffn_norm";
};

using PlainKey = std::variant<uint32_t, float, bool, std::string>;

struct TinyModel {
  std::string architecture;
  PlainConfig config;
  std::map<std::string, PlainKey> keys;  ///< without the architecture's prefix
  std::map<std::string, PlainTensor> tensors;

  void remove(const std::string& tensor) { tensors.erase(tensor); }
};

/// Architectures that tiny_model() makes. "deepseek2-v3" and "mixtral" are variants.
std::vector<std::string> tiny_model_names();
TinyModel tiny_model(const std::string& name);
/// Wider: K-quants want rows of 256.
TinyModel wide_model(const std::string& name);

/// Writes the model; matrices as `type`, everything else (and the router) as F32. The model's
/// values become what a reader finds.
void write_gguf(TinyModel& model, const std::filesystem::path& path,
                kernels::BlockType type = kernels::BlockType::kF32);

/// Logits [tokens, V] in plain double loops.
std::vector<float> plain_logits(const TinyModel& model, const std::vector<TokenId>& tokens);

/// Random tokens of a vocabulary of 96.
std::vector<TokenId> some_tokens(int64_t count, uint64_t seed);

}  // namespace cadre::engine
