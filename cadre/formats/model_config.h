#pragma once

/// A language model's shape as `config.json` states it, for the architectures whose names and keys
/// we read and write. The learn wing builds models from it, the run wing will too.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "cadre/formats/router_config.h"

namespace cadre {

/// Decoders that differ in their names, their config keys and small choices.
enum class Architecture {
  kLlama,     ///< dense: LlamaForCausalLM
  kOlmoe,     ///< OlmoeForCausalLM: full-width q/k norm, raw softmax weights, no shared expert
  kDeepseek,  ///< DeepseekForCausalLM (DeepSeekMoE): shared experts, leading dense layers
};
/// "llama", "olmoe", "deepseek": the model_type of config.json. architecture_named throws
/// UsageError and lists the known ones.
std::string_view name_of(Architecture architecture);
Architecture architecture_named(std::string_view model_type);

struct ModelConfig {
  Architecture architecture = Architecture::kDeepseek;
  int64_t vocabulary = 0;
  int64_t hidden = 256;
  int64_t layers = 6;
  int64_t heads = 4;
  int64_t kv_heads = 4;
  int64_t head_dim = 0;         ///< 0 = hidden / heads
  int64_t intermediate = 1024;  ///< inner width of a dense feed-forward layer
  int64_t experts = 0;          ///< routed experts a layer; 0 = dense
  int64_t experts_per_token = 0;
  int64_t expert_intermediate = 0;  ///< inner width of one routed expert
  int64_t shared_experts = 0;       ///< number of shared experts, each of expert_intermediate
  int64_t first_dense_layers = 0;   ///< leading layers with a dense feed-forward of `intermediate`
  bool normalize_expert_weights = false;
  double balance_coefficient = 0.01;
  bool balance_per_sequence =
      false;  ///< deepseek's seq_aux: load averaged per sequence, not per batch
  double z_loss_coefficient = 0.001;  ///< no standard key: under "cadre"
  int64_t max_positions = 2048;
  double rope_theta = 10000.0;
  double norm_eps = 1e-6;
  bool tied_embeddings = false;
  double init_std = 0.02;
  int64_t end_of_text = -1;  ///< eos_token_id
  RouterConfig router = {};  ///< under "cadre"; standard = experts_per_token of a softmax
  /// Coefficients of further routing losses by name (objectives_list() of
  /// cadre/objectives/objectives.h); under "cadre".
  std::map<std::string, double> objectives = {};

  bool is_dense_layer(int64_t layer) const { return experts == 0 || layer < first_dense_layers; }
  /// Layers with experts.
  int64_t expert_layers() const { return experts == 0 ? 0 : layers - first_dense_layers; }
  RouterShape router_shape() const;
  int64_t head_width() const { return head_dim ? head_dim : hidden / heads; }
  /// Throws UsageError naming the field: zero or absurd sizes, k > experts, zero experts with k >
  /// 0, hidden not divisible by heads, heads not divisible by kv_heads, odd head width, shared
  /// experts in olmoe ...
  void validate() const;
};

struct ParameterCount {
  int64_t total = 0, active = 0, embedding = 0, per_expert = 0;
};
/// Parameters of the whole model, those that work on one token (embedding and head counted whole),
/// the embedding's (and head's), one routed expert's (one layer).
ParameterCount count_parameters(const ModelConfig& config);

/// config.json <-> ModelConfig. Reading throws FormatError naming file and key (missing, wrong
/// type, unknown model_type).
ModelConfig parse_model_config(const nlohmann::json& json, const std::string& where);
ModelConfig read_model_config(const std::filesystem::path& folder);
nlohmann::json to_json(const ModelConfig& config);

/// The checkpoint's name of a tensor. Layer tensors: "model.layers.3.self_attn.q_proj.weight",
/// experts': "model.layers.3.mlp.experts.7.up_proj.weight", the router's
/// "model.layers.3.mlp.gate.weight" and what else its kind has under that prefix.
struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
};
/// Every tensor the architecture's checkpoint holds, in a fixed order.
std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config);

}  // namespace cadre
