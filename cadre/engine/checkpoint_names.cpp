// The names that Hugging Face's transformers gives to keys and tensors, beside GGUF's.

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/engine/checkpoint_source.h"
#include "cadre/formats/json.h"

namespace cadre::engine {
namespace {

using nlohmann::json;

struct ModelType {
  std::string_view model_type, architecture;
  RopeLayout rope = RopeLayout::kHalves;
  bool normalize = false;  ///< norm_topk_prob when the file does not say
  const char* expert_width = "moe_intermediate_size";
  StackForm stacks = StackForm::kRows;
  bool own_gating = false;  ///< the architecture's, which no key says
};
constexpr std::array kModelTypes = {
    ModelType{"llama", "llama"},
    ModelType{"mixtral", "llama", RopeLayout::kHalves, true, "intermediate_size"},
    ModelType{"olmoe", "olmoe", RopeLayout::kHalves, false, "intermediate_size"},
    ModelType{"qwen2", "qwen2"},
    ModelType{"qwen3", "qwen3"},
    ModelType{"qwen2_moe", "qwen2moe"},
    ModelType{"qwen3_moe", "qwen3moe"},
    ModelType{"deepseek", "deepseek"},
    ModelType{"deepseek_v2", "deepseek2", RopeLayout::kAdjacent},
    ModelType{"deepseek_v3", "deepseek2", RopeLayout::kAdjacent, true},
    ModelType{"granite", "granite"},
    ModelType{"granitemoe", "granitemoe", RopeLayout::kHalves, true, "intermediate_size"},
    ModelType{"granitemoeshared", "granitemoe", RopeLayout::kHalves, true, "intermediate_size"},
    ModelType{"phimoe", "phimoe", RopeLayout::kHalves, false, "intermediate_size", StackForm::kRows,
              true},
    ModelType{"dbrx", "dbrx", RopeLayout::kHalves, true, "intermediate_size",
              StackForm::kDownTransposed},
    ModelType{"gpt_oss", "gpt-oss", RopeLayout::kHalves, false, "intermediate_size",
              StackForm::kAllTransposed, true},
};

struct KeyName {
  const char* gguf;
  const char* theirs;
};
constexpr std::array kIntegers = {
    KeyName{"block_count", "num_hidden_layers"},
    KeyName{"embedding_length", "hidden_size"},
    KeyName{"context_length", "max_position_embeddings"},
    KeyName{"feed_forward_length", "intermediate_size"},
    KeyName{"attention.head_count", "num_attention_heads"},
    KeyName{"attention.head_count_kv", "num_key_value_heads"},
    KeyName{"attention.key_length", "head_dim"},
    KeyName{"expert_used_count", "num_experts_per_tok"},
    KeyName{"expert_count", "num_experts"},
    KeyName{"expert_count", "num_local_experts"},
    KeyName{"expert_count", "n_routed_experts"},
    KeyName{"expert_shared_count", "n_shared_experts"},
    KeyName{"expert_shared_feed_forward_length", "shared_expert_intermediate_size"},
    KeyName{"expert_shared_feed_forward_length", "shared_intermediate_size"},
    KeyName{"leading_dense_block_count", "first_k_dense_replace"},
    KeyName{"attention.q_lora_rank", "q_lora_rank"},
    KeyName{"attention.kv_lora_rank", "kv_lora_rank"},
    KeyName{"attention.value_length_mla", "v_head_dim"},
    KeyName{"rope.dimension_count", "qk_rope_head_dim"},
};
constexpr std::array kNumbers = {
    KeyName{"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    KeyName{"rope.freq_base", "rope_theta"},
    KeyName{"expert_weights_scale", "routed_scaling_factor"},
    KeyName{"attention.clamp_kqv", "clip_qkv"},
    KeyName{"embedding_scale", "embedding_multiplier"},
    KeyName{"residual_scale", "residual_multiplier"},
    KeyName{"attention.scale", "attention_multiplier"},
    KeyName{"logit_scale", "logits_scaling"},
};
/// dbrx: at the top, in attn_config, in ffn_config.
constexpr std::array kDbrxTop = {
    KeyName{"block_count", "n_layers"},
    KeyName{"embedding_length", "d_model"},
    KeyName{"context_length", "max_seq_len"},
    KeyName{"attention.head_count", "n_heads"},
};
constexpr std::array kDbrxFfn = {
    KeyName{"feed_forward_length", "ffn_hidden_size"},
    KeyName{"expert_feed_forward_length", "ffn_hidden_size"},
    KeyName{"expert_count", "moe_num_experts"},
    KeyName{"expert_used_count", "moe_top_k"},
};
constexpr std::array kScalingNumbers = {
    KeyName{"rope.scaling.factor", "factor"},
    KeyName{"rope.scaling.yarn_beta_fast", "beta_fast"},
    KeyName{"rope.scaling.yarn_beta_slow", "beta_slow"},
    KeyName{"rope.scaling.low_freq_factor", "low_freq_factor"},
    KeyName{"rope.scaling.high_freq_factor", "high_freq_factor"},
};

/// Null and absent are the same.
const json* find(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

void copy_integer(const json& object, const KeyName& name, KeyValues& keys) {
  const json* value = find(object, name.theirs);
  if (value == nullptr) return;
  keys.alias(name.gguf, name.theirs);
  const bool fits = value->is_number_integer() &&
                    (!value->is_number_unsigned() || value->get<uint64_t>() <= INT64_MAX);
  if (!fits) keys.fail(name.gguf, "must be an integer");
  keys.set(name.gguf, value->get<int64_t>());
}

void copy_number(const json& object, const KeyName& name, KeyValues& keys) {
  const json* value = find(object, name.theirs);
  if (value == nullptr) return;
  keys.alias(name.gguf, name.theirs);
  if (!value->is_number()) keys.fail(name.gguf, "must be a number");
  keys.set(name.gguf, value->get<double>());
}

bool flag_of(const json& object, const char* key, bool fallback, const KeyValues& keys) {
  const json* value = find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_boolean()) {
    throw FormatError("{}: key \"{}\" must be true or false", keys.where(), key);
  }
  return value->get<bool>();
}

std::string text_of(const json& object, const char* key, const std::string& fallback,
                    const KeyValues& keys) {
  const json* value = find(object, key);
  if (value == nullptr) return fallback;
  if (!value->is_string()) throw FormatError("{}: key \"{}\" must be a string", keys.where(), key);
  return value->get<std::string>();
}

void only(const json& object, const char* key, const json& known, const KeyValues& keys) {
  const json* value = find(object, key);
  if (value == nullptr || *value == known) return;
  throw FormatError("{}: key \"{}\" is {}, which is not supported (only {})", keys.where(), key,
                    value->dump(-1, ' ', true), known.dump());
}

/// `rope_theta` and `rope_scaling` at the top (transformers 4), or both in `rope_parameters` (5).
void read_rope_scaling(const json& config, KeyValues& keys) {
  const json* scaling = find(config, "rope_scaling");
  if (scaling == nullptr) scaling = find(config, "rope_parameters");
  if (scaling == nullptr) return;
  if (!scaling->is_object()) {
    throw FormatError("{}: key \"rope_scaling\" must be an object", keys.where());
  }
  copy_number(*scaling, {"rope.freq_base", "rope_theta"}, keys);
  const std::string type =
      text_of(*scaling, "rope_type", text_of(*scaling, "type", "default", keys), keys);
  if (type == "default") return;
  keys.alias("rope.scaling.type", "rope_type");
  keys.set("rope.scaling.type", type);
  for (const KeyName& name : kScalingNumbers) copy_number(*scaling, name, keys);
  copy_integer(*scaling,
               {"rope.scaling.original_context_length", "original_max_position_embeddings"}, keys);
  if (const json* all = find(*scaling, "mscale_all_dim"); all != nullptr && all->is_number()) {
    keys.set("rope.scaling.yarn_log_multiplier", 0.1 * all->get<double>());
  }
}

void read_routing(const json& config, const ModelType& type, KeyValues& keys) {
  only(config, "moe_layer_freq", 1, keys);
  only(config, "decoder_sparse_step", 1, keys);
  only(config, "mlp_only_layers", json::array(), keys);
  keys.set("expert_weights_norm", flag_of(config, "norm_topk_prob", type.normalize, keys));
  copy_integer(config, {"expert_feed_forward_length", type.expert_width}, keys);
  if (type.own_gating) return;
  const std::string scoring = text_of(config, "scoring_func", "softmax", keys);
  if (scoring != "softmax" && scoring != "sigmoid") only(config, "scoring_func", "softmax", keys);
  keys.set("expert_gating_func", int64_t{scoring == "sigmoid" ? 2 : 1});
  if (text_of(config, "topk_method", "greedy", keys) == "greedy") return;
  copy_integer(config, {"expert_group_count", "n_group"}, keys);
  copy_integer(config, {"expert_group_used_count", "topk_group"}, keys);
}

void read_latent(const json& config, KeyValues& keys) {
  const KeyName nope = {"qk_nope_head_dim", "qk_nope_head_dim"};
  copy_integer(config, nope, keys);
  keys.alias("attention.kv_lora_rank", "kv_lora_rank");
  keys.alias("rope.dimension_count", "qk_rope_head_dim");
  const int64_t width =
      keys.size("qk_nope_head_dim", 1, 1 << 14) + keys.size("rope.dimension_count", 2, 1 << 14);
  keys.set("attention.key_length", width);
}

const json& object_of(const json& config, const char* key, const KeyValues& keys) {
  const json* object = find(config, key);
  if (object == nullptr || !object->is_object())
    throw FormatError("{}: key \"{}\" must be an object", keys.where(), key);
  return *object;
}

/// DBRX has words of its own.
void read_dbrx(const json& config, KeyValues& keys) {
  const json& attention = object_of(config, "attn_config", keys);
  const json& ffn = object_of(config, "ffn_config", keys);
  for (const KeyName& name : kDbrxTop) {
    keys.alias(name.gguf, name.theirs);
    copy_integer(config, name, keys);
  }
  for (const KeyName& name : kDbrxFfn) {
    keys.alias(name.gguf, name.theirs);
    copy_integer(ffn, name, keys);
  }
  copy_integer(attention, {"attention.head_count_kv", "kv_n_heads"}, keys);
  copy_number(attention, {"attention.clamp_kqv", "clip_qkv"}, keys);
  copy_number(attention, {"rope.freq_base", "rope_theta"}, keys);
  if (const json* activation = find(ffn, "ffn_act_fn"); activation != nullptr)
    only(*activation, "name", "silu", keys);
  only(ffn, "moe_normalize_expert_weights", 1, keys);
  keys.set("attention.layer_norm_rms_epsilon",
           1e-5);  // torch's, which no key says
}

/// gpt-oss: what its checkpoints may say that the architecture's row takes for
/// granted.
void read_gpt_oss(const json& config, KeyValues& keys) {
  copy_integer(config, {"attention.sliding_window", "sliding_window"}, keys);
  only(config, "swiglu_limit", 7.0, keys);
  if (find(config, "quantization_config") != nullptr)
    throw FormatError(
        "{}: key \"quantization_config\": packed experts are not read from "
        "folders; take the "
        "model's GGUF file, or a folder of its weights in bfloat16",
        keys.where());
  const json* layers = find(config, "layer_types");
  if (layers == nullptr) return;
  for (size_t i = 0; layers->is_array() && i < layers->size(); ++i)
    if ((*layers)[i] != (i % 2 == 0 ? "sliding_attention" : "full_attention"))
      throw FormatError(
          "{}: key \"layer_types\" must alternate, beginning "
          "with sliding_attention",
          keys.where());
}

/// LongRoPE's factors, which GGUF has as tensors.
void read_long_rope(const json& config, CheckpointConfig& result) {
  const json* scaling = find(config, "rope_scaling");
  if (scaling == nullptr) scaling = find(config, "rope_parameters");
  if (scaling == nullptr || result.keys.text("rope.scaling.type", "none") != "longrope") return;
  for (const auto& [gguf, theirs] : {std::pair{"rope_factors_short.weight", "short_factor"},
                                     {"rope_factors_long.weight", "long_factor"}}) {
    const json* factors = find(*scaling, theirs);
    const auto is_number = [](const json& factor) { return factor.is_number(); };
    if (factors == nullptr || !factors->is_array() ||
        !std::all_of(factors->begin(), factors->end(), is_number))
      throw FormatError("{}: key \"{}\" must be a list of numbers", result.keys.where(), theirs);
    result.vectors[gguf] = factors->get<std::vector<float>>();
  }
  const json* scale = find(*scaling, "short_mscale");
  if (scale == nullptr) return;
  only(*scaling, "long_mscale", *scale, result.keys);
  copy_number(*scaling, {"rope.scaling.attn_factor", "short_mscale"}, result.keys);
}

const ModelType& model_type_of(const json& config, const std::string& where) {
  const json* name = find(config, "model_type");
  if (name == nullptr || !name->is_string()) {
    throw FormatError("{}: key \"model_type\" must be a string", where);
  }
  std::string known;
  for (const ModelType& type : kModelTypes) {
    if (*name == type.model_type) return type;
    known += (known.empty() ? "" : ", ") + std::string(type.model_type);
  }
  throw FormatError("{}: model_type {} is not supported (known: {})", where,
                    quote(name->get<std::string>()), known);
}

struct TensorName {
  std::string_view theirs, gguf;
};
constexpr std::array kTopNames = {
    TensorName{"model.embed_tokens.", "token_embd."},
    TensorName{"model.norm.", "output_norm."},
    TensorName{"lm_head.", "output."},
    TensorName{"transformer.wte.", "token_embd."},
    TensorName{"transformer.norm_f.", "output_norm."},
};
constexpr std::array kLayerNames = {
    TensorName{"input_layernorm.", "attn_norm."},
    TensorName{"self_attn.q_proj.", "attn_q."},
    TensorName{"self_attn.k_proj.", "attn_k."},
    TensorName{"self_attn.v_proj.", "attn_v."},
    TensorName{"self_attn.o_proj.", "attn_output."},
    TensorName{"self_attn.q_norm.", "attn_q_norm."},
    TensorName{"self_attn.k_norm.", "attn_k_norm."},
    TensorName{"self_attn.q_a_proj.", "attn_q_a."},
    TensorName{"self_attn.q_a_layernorm.", "attn_q_a_norm."},
    TensorName{"self_attn.q_b_proj.", "attn_q_b."},
    TensorName{"self_attn.kv_a_proj_with_mqa.", "attn_kv_a_mqa."},
    TensorName{"self_attn.kv_a_layernorm.", "attn_kv_a_norm."},
    TensorName{"self_attn.kv_b_proj.", "attn_kv_b."},
    TensorName{"post_attention_layernorm.", "ffn_norm."},
    TensorName{"mlp.gate_proj.", "ffn_gate."},
    TensorName{"mlp.up_proj.", "ffn_up."},
    TensorName{"mlp.down_proj.", "ffn_down."},
    TensorName{"mlp.expert_map", "ffn_exp_map"},
    TensorName{"block_sparse_moe.expert_map", "ffn_exp_map"},
    TensorName{"mlp.gate.e_score_correction_bias", "exp_probs_b.bias"},
    TensorName{"mlp.gate.", "ffn_gate_inp."},
    TensorName{"block_sparse_moe.gate.", "ffn_gate_inp."},
    TensorName{"mlp.shared_experts.gate_proj.", "ffn_gate_shexp."},
    TensorName{"mlp.shared_experts.up_proj.", "ffn_up_shexp."},
    TensorName{"mlp.shared_experts.down_proj.", "ffn_down_shexp."},
    TensorName{"mlp.shared_expert.gate_proj.", "ffn_gate_shexp."},
    TensorName{"mlp.shared_expert.up_proj.", "ffn_up_shexp."},
    TensorName{"mlp.shared_expert.down_proj.", "ffn_down_shexp."},
    TensorName{"mlp.shared_expert_gate.", "ffn_gate_inp_shexp."},
    // granite
    TensorName{"block_sparse_moe.input_linear.", "ffn_gate_up_exps."},
    TensorName{"block_sparse_moe.output_linear.", "ffn_down_exps."},
    TensorName{"block_sparse_moe.router.layer.", "ffn_gate_inp."},
    TensorName{"shared_mlp.input_linear.", "ffn_gate_up_shexp."},
    TensorName{"shared_mlp.output_linear.", "ffn_down_shexp."},
    // gpt-oss
    TensorName{"self_attn.sinks", "attn_sinks.weight"},
    TensorName{"mlp.router.", "ffn_gate_inp."},
    TensorName{"mlp.experts.gate_up_proj_bias", "ffn_gate_up_exps.bias"},
    TensorName{"mlp.experts.gate_up_proj", "ffn_gate_up_exps.weight"},
    TensorName{"mlp.experts.down_proj_bias", "ffn_down_exps.bias"},
    TensorName{"mlp.experts.down_proj", "ffn_down_exps.weight"},
    // dbrx
    TensorName{"norm_attn_norm.norm_1.", "attn_norm."},
    TensorName{"norm_attn_norm.norm_2.", "attn_output_norm."},
    TensorName{"norm_attn_norm.attn.Wqkv.", "attn_qkv."},
    TensorName{"norm_attn_norm.attn.out_proj.", "attn_output."},
    TensorName{"ffn.router.layer.", "ffn_gate_inp."},
    TensorName{"ffn.experts.mlp.w1", "ffn_gate_exps.weight"},
    TensorName{"ffn.experts.mlp.v1", "ffn_up_exps.weight"},
    TensorName{"ffn.experts.mlp.w2", "ffn_down_exps.weight"},
};
constexpr std::array kExpertNames = {
    TensorName{"gate_proj.", "ffn_gate_exps."}, TensorName{"up_proj.", "ffn_up_exps."},
    TensorName{"down_proj.", "ffn_down_exps."}, TensorName{"w1.", "ffn_gate_exps."},
    TensorName{"w3.", "ffn_up_exps."},          TensorName{"w2.", "ffn_down_exps."},
};

template <size_t n>
std::string renamed(std::string_view name, const std::array<TensorName, n>& table) {
  for (const TensorName& entry : table) {
    if (!name.starts_with(entry.theirs)) continue;
    return std::string(entry.gguf).append(name.substr(entry.theirs.size()));
  }
  return "";
}

/// Takes "123." off the front.
std::optional<int64_t> take_number(std::string_view& name) {
  int64_t number = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
  const auto used = static_cast<size_t>(end - name.data());
  if (error != std::errc() || number < 0 || used >= name.size() || name[used] != '.') {
    return std::nullopt;
  }
  name.remove_prefix(used + 1);
  return number;
}

bool take(std::string_view& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return false;
  name.remove_prefix(prefix.size());
  return true;
}

/// Takes what precedes a layer's number off the front.
bool take_layers(std::string_view& name) {
  return take(name, "model.layers.") || take(name, "transformer.blocks.");
}

}  // namespace

CheckpointConfig read_checkpoint_config(const json& config, const std::string& where) {
  if (!config.is_object()) throw FormatError("{}: must hold a JSON object", where);
  const ModelType& type = model_type_of(config, where);
  CheckpointConfig result{.architecture = std::string(type.architecture),
                          .rope = type.rope,
                          .keys = KeyValues(where, ""),
                          .stacks = type.stacks};
  KeyValues& keys = result.keys;
  only(config, "hidden_act", "silu", keys);
  for (const KeyName& name : kIntegers) {
    if (!keys.contains(name.gguf)) keys.alias(name.gguf, name.theirs);
    copy_integer(config, name, keys);
  }
  keys.set("attention.layer_norm_rms_epsilon", type.model_type == "olmoe" ? 1e-5 : 1e-6);
  for (const KeyName& name : kNumbers) copy_number(config, name, keys);
  read_rope_scaling(config, keys);
  if (type.architecture == "deepseek2") read_latent(config, keys);
  if (type.architecture == "dbrx") read_dbrx(config, keys);
  if (type.architecture == "gpt-oss") read_gpt_oss(config, keys);
  if (type.architecture == "phimoe") only(config, "router_jitter_noise", 0.01, keys);
  read_long_rope(config, result);
  if (keys.contains("expert_count")) read_routing(config, type, keys);
  return result;
}

std::string gguf_name_of(const std::string& name) {
  std::string_view rest = name;
  if (!take_layers(rest)) return renamed(rest, kTopNames);
  const auto layer = take_number(rest);
  const std::string renamed_rest = layer ? renamed(rest, kLayerNames) : "";
  return renamed_rest.empty() ? "" : fmt::format("blk.{}.{}", *layer, renamed_rest);
}

std::optional<int64_t> layer_of(const std::string& name) {
  std::string_view rest = name;
  return take_layers(rest) ? take_number(rest) : std::nullopt;
}

std::optional<ExpertName> expert_name_of(const std::string& name) {
  std::string_view rest = name;
  if (!take(rest, "model.layers.")) return std::nullopt;
  const auto layer = take_number(rest);
  if (!layer || !(take(rest, "mlp.experts.") || take(rest, "block_sparse_moe.experts."))) {
    return std::nullopt;
  }
  const auto expert = take_number(rest);
  const std::string stacked = expert ? renamed(rest, kExpertNames) : "";
  if (stacked.empty()) return std::nullopt;
  return ExpertName{fmt::format("blk.{}.{}", *layer, stacked), *expert};
}

}  // namespace cadre::engine
