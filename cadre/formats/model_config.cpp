#include "cadre/formats/model_config.h"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/formats/router_kinds.h"

namespace cadre {
namespace {

using nlohmann::json;

struct ArchitectureName {
  Architecture architecture;
  std::string_view model_type;
  std::string_view class_name;
};
constexpr std::array kArchitectures = {
    ArchitectureName{Architecture::kLlama, "llama", "LlamaForCausalLM"},
    ArchitectureName{Architecture::kOlmoe, "olmoe", "OlmoeForCausalLM"},
    ArchitectureName{Architecture::kDeepseek, "deepseek", "DeepseekForCausalLM"},
};

const ArchitectureName& entry_of(Architecture architecture) {
  for (const ArchitectureName& entry : kArchitectures) {
    if (entry.architecture == architecture) return entry;
  }
  throw Error("unknown architecture {}", static_cast<int>(architecture));
}

const ArchitectureName* find_architecture(std::string_view model_type) {
  for (const ArchitectureName& entry : kArchitectures) {
    if (entry.model_type == model_type) return &entry;
  }
  return nullptr;
}

std::string known_architectures() {
  std::string list;
  for (const ArchitectureName& entry : kArchitectures) {
    list += (list.empty() ? "" : ", ") + std::string(entry.model_type);
  }
  return list;
}

void check_range(const char* field, int64_t value, int64_t low, int64_t high) {
  if (value < low || value > high) {
    throw UsageError("model config: {} is {}, must be from {} to {}", field, value, low, high);
  }
}

void check_real(const char* field, double value, double low) {
  if (!std::isfinite(value) || value < low) {
    throw UsageError("model config: {} is {}, must be a number of at least {}", field, value, low);
  }
}

void check_attention(const ModelConfig& c) {
  if (c.head_dim == 0 && c.hidden % c.heads != 0) {
    throw UsageError("model config: hidden ({}) is not divisible by heads ({})", c.hidden, c.heads);
  }
  if (c.heads % c.kv_heads != 0) {
    throw UsageError("model config: heads ({}) is not divisible by kv_heads ({})", c.heads,
                     c.kv_heads);
  }
  if (c.head_width() % 2 != 0) {
    throw UsageError("model config: the width of a head ({}) must be even for rotary positions",
                     c.head_width());
  }
  if (c.architecture != Architecture::kLlama && c.head_width() * c.heads != c.hidden) {
    throw UsageError("model config: {} has no head_dim other than hidden / heads ({} / {})",
                     name_of(c.architecture), c.hidden, c.heads);
  }
}

void check_dense(const ModelConfig& c) {
  if (c.experts != 0 || c.experts_per_token != 0 || c.shared_experts != 0) {
    throw UsageError(
        "model config: llama is dense, but experts = {}, experts_per_token = {}, shared_experts = "
        "{}; use olmoe or deepseek",
        c.experts, c.experts_per_token, c.shared_experts);
  }
  if (!c.router.is_standard()) {
    throw UsageError("model config: llama is dense and has no router {}; use olmoe or deepseek",
                     c.router.kind);
  }
}

void check_experts(const ModelConfig& c) {
  if (c.experts == 0) {
    throw UsageError("model config: experts is 0, but {} needs some; use llama for a dense model",
                     name_of(c.architecture));
  }
  check_range("experts", c.experts, 1, 1 << 16);
  check_range("experts_per_token", c.experts_per_token, 1, 1 << 16);
  if (c.experts_per_token > c.experts) {
    throw UsageError("model config: experts_per_token ({}) is more than experts ({})",
                     c.experts_per_token, c.experts);
  }
  check_range("expert_intermediate", c.expert_intermediate, 1, 1 << 20);
  check_range("shared_experts", c.shared_experts, 0, 1024);
  check_range("first_dense_layers", c.first_dense_layers, 0, c.layers - 1);
  if (c.layers * c.experts > (int64_t{1} << 20)) {
    throw UsageError("model config: layers x experts = {} is more than a million",
                     c.layers * c.experts);
  }
}

void check_olmoe(const ModelConfig& c) {
  if (c.shared_experts != 0 || c.first_dense_layers != 0) {
    throw UsageError(
        "model config: olmoe has no {}; use deepseek",
        c.shared_experts ? "shared experts (shared_experts)" : "dense layers (first_dense_layers)");
  }
}

/// Parameters in double: a hostile config must not overflow.
double approximate_parameters(const ModelConfig& c) {
  const double inner =
      static_cast<double>(c.intermediate) + static_cast<double>(c.expert_intermediate) *
                                                static_cast<double>(c.experts + c.shared_experts);
  const double attention = 4.0 * static_cast<double>(c.heads * c.head_width());
  return static_cast<double>(c.hidden) * (2.0 * static_cast<double>(c.vocabulary) +
                                          static_cast<double>(c.layers) * (attention + 3 * inner));
}

/// One JSON object whose keys are taken with a check; errors name file and key.
class Keys {
 public:
  Keys(const json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) throw FormatError("{}: is not a JSON object", where_);
  }

  const json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  [[noreturn]] void fail(const char* key, const std::string& what) const {
    throw FormatError("{}: \"{}\" {}", where_, key, what);
  }

  std::string text(const char* key) const {
    const json& value = required(key);
    if (!value.is_string()) fail(key, "must be a string");
    return value.get<std::string>();
  }

  int64_t integer(const char* key) const { return integer_of(key, required(key)); }
  int64_t integer(const char* key, int64_t fallback) const {
    const json* value = find(key);
    return value ? integer_of(key, *value) : fallback;
  }

  double real(const char* key, double fallback) const {
    const json* value = find(key);
    if (!value) return fallback;
    if (!value->is_number()) fail(key, "must be a number");
    return value->get<double>();
  }

  bool flag(const char* key, bool fallback) const {
    const json* value = find(key);
    if (!value) return fallback;
    if (!value->is_boolean()) fail(key, "must be true or false");
    return value->get<bool>();
  }

  /// A choice that we know only one value of: absent or null counts as that value.
  void only(const char* key, const json& known) const {
    const json* value = find(key);
    if (value && *value != known) {
      fail(key, fmt::format("is {}, which is not supported (only {})", value->dump(-1, ' ', true),
                            known.dump()));
    }
  }

  const std::string& where() const { return where_; }

 private:
  const json& required(const char* key) const {
    const json* value = find(key);
    if (!value) fail(key, "is missing");
    return *value;
  }

  int64_t integer_of(const char* key, const json& value) const {
    const bool fits = value.is_number_integer() &&
                      (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
    if (!fits) fail(key, "must be an integer");
    return value.get<int64_t>();
  }

  const json& object_;
  std::string where_;
};

/// `rope_theta` at the top (transformers 4) or in `rope_parameters` (transformers 5).
double rope_theta_of(const Keys& keys) {
  keys.only("rope_scaling", nullptr);
  const json* parameters = keys.find("rope_parameters");
  if (!parameters) return keys.real("rope_theta", 10000.0);
  const Keys rope(*parameters, keys.where() + ": \"rope_parameters\"");
  rope.only("rope_type", "default");
  return rope.real("rope_theta", 10000.0);
}

/// An id, or a list of ids of which the first is the end of a text.
int64_t end_of_text_of(const Keys& keys) {
  const json* value = keys.find("eos_token_id");
  if (!value) return -1;
  const json& first = value->is_array() && !value->empty() ? value->front() : *value;
  if (!first.is_number_integer()) keys.fail("eos_token_id", "must be an integer");
  return first.get<int64_t>();
}

void read_common(const Keys& keys, ModelConfig& c) {
  keys.only("hidden_act", "silu");
  keys.only("attention_bias", false);
  c.vocabulary = keys.integer("vocab_size");
  c.hidden = keys.integer("hidden_size");
  c.layers = keys.integer("num_hidden_layers");
  c.heads = keys.integer("num_attention_heads");
  c.kv_heads = keys.integer("num_key_value_heads", c.heads);
  c.max_positions = keys.integer("max_position_embeddings", 2048);
  c.rope_theta = rope_theta_of(keys);
  c.norm_eps = keys.real("rms_norm_eps", c.architecture == Architecture::kOlmoe ? 1e-5 : 1e-6);
  c.tied_embeddings = keys.flag("tie_word_embeddings", false);
  c.init_std = keys.real("initializer_range", 0.02);
  c.end_of_text = end_of_text_of(keys);
}

void read_llama(const Keys& keys, ModelConfig& c) {
  keys.only("mlp_bias", false);
  c.intermediate = keys.integer("intermediate_size");
  c.head_dim = keys.integer("head_dim", 0);
}

void read_olmoe(const Keys& keys, ModelConfig& c) {
  keys.only("clip_qkv", nullptr);
  c.expert_intermediate = keys.integer("intermediate_size");
  c.experts = keys.integer("num_experts");
  c.experts_per_token = keys.integer("num_experts_per_tok");
  c.normalize_expert_weights = keys.flag("norm_topk_prob", false);
  c.balance_coefficient = keys.real("router_aux_loss_coef", 0.01);
}

void read_deepseek(const Keys& keys, ModelConfig& c) {
  keys.only("moe_layer_freq", 1);
  keys.only("scoring_func", "softmax");
  keys.only("topk_method", "greedy");
  keys.only("routed_scaling_factor", 1.0);
  c.first_dense_layers = keys.integer("first_k_dense_replace", 0);
  c.intermediate = keys.integer("intermediate_size");
  c.expert_intermediate = keys.integer("moe_intermediate_size");
  c.experts = keys.integer("n_routed_experts");
  c.experts_per_token = keys.integer("num_experts_per_tok");
  c.shared_experts = keys.integer("n_shared_experts", 0);
  c.normalize_expert_weights = keys.flag("norm_topk_prob", false);
  c.balance_coefficient = keys.real("aux_loss_alpha", 0.001);
  c.balance_per_sequence = keys.flag("seq_aux", true);
}

void read_cadre(const Keys& keys, ModelConfig& c) {
  c.z_loss_coefficient = 0;
  const json* found = keys.find("cadre");
  if (!found) return;
  const std::string where = keys.where() + ": \"cadre\"";
  const Keys own(*found, where);
  c.z_loss_coefficient = own.real("z_loss_coefficient", 0.0);
  if (const json* router = own.find("router")) {
    c.router = parse_router_config(*router, where + ": \"router\"");
  }
  const json* objectives = own.find("objectives");
  if (!objectives) return;
  const Keys coefficients(*objectives, where + ": \"objectives\"");
  for (const auto& [name, value] : objectives->items()) {
    c.objectives[name] = coefficients.real(name.c_str(), 0.0);
  }
}

json cadre_keys(const ModelConfig& c) {
  json own = {{"z_loss_coefficient", c.z_loss_coefficient}};
  if (!c.router.is_standard()) own["router"] = to_json(c.router);
  if (!c.objectives.empty()) own["objectives"] = c.objectives;
  return own;
}

void add_expert_keys(json& j, const ModelConfig& c) {
  j["num_experts_per_tok"] = c.experts_per_token;
  j["norm_topk_prob"] = c.normalize_expert_weights;
  if (c.architecture == Architecture::kOlmoe) {
    j["intermediate_size"] = c.expert_intermediate;
    j["num_experts"] = c.experts;
    j["router_aux_loss_coef"] = c.balance_coefficient;
    j["output_router_logits"] = false;
    j["clip_qkv"] = nullptr;
  } else {
    j["moe_intermediate_size"] = c.expert_intermediate;
    j["n_routed_experts"] = c.experts;
    j["n_shared_experts"] = c.shared_experts ? json(c.shared_experts) : json(nullptr);
    j["first_k_dense_replace"] = c.first_dense_layers;
    j["moe_layer_freq"] = 1;
    j["scoring_func"] = "softmax";
    j["aux_loss_alpha"] = c.balance_coefficient;
    j["seq_aux"] = c.balance_per_sequence;
  }
  j["cadre"] = cadre_keys(c);
}

void add_feed_forward(std::vector<ExpectedTensor>& list, const std::string& prefix, int64_t hidden,
                      int64_t inner) {
  list.push_back({prefix + "gate_proj.weight", {inner, hidden}});
  list.push_back({prefix + "up_proj.weight", {inner, hidden}});
  list.push_back({prefix + "down_proj.weight", {hidden, inner}});
}

void add_attention(std::vector<ExpectedTensor>& list, const std::string& prefix,
                   const ModelConfig& c) {
  const int64_t q = c.heads * c.head_width();
  const int64_t kv = c.kv_heads * c.head_width();
  list.push_back({prefix + "q_proj.weight", {q, c.hidden}});
  list.push_back({prefix + "k_proj.weight", {kv, c.hidden}});
  list.push_back({prefix + "v_proj.weight", {kv, c.hidden}});
  list.push_back({prefix + "o_proj.weight", {c.hidden, q}});
  if (c.architecture == Architecture::kOlmoe) {
    list.push_back({prefix + "q_norm.weight", {q}});
    list.push_back({prefix + "k_norm.weight", {kv}});
  }
}

void add_router(std::vector<ExpectedTensor>& list, const std::string& prefix, const ModelConfig& c,
                int64_t layer) {
  if (c.router.is_standard()) {
    list.push_back({prefix + "weight", {c.experts, c.hidden}});
    return;
  }
  const RouterKind& kind = router_kind_named(c.router.kind);
  const int64_t index = layer - c.first_dense_layers;
  for (const auto& [name, shape] : kind.tensors(c.router, c.router_shape(), index)) {
    list.push_back({prefix + name, shape});
  }
}

void add_token_layer(std::vector<ExpectedTensor>& list, const std::string& prefix,
                     const ModelConfig& c, int64_t layer) {
  if (c.is_dense_layer(layer)) {
    add_feed_forward(list, prefix, c.hidden, c.intermediate);
    return;
  }
  add_router(list, prefix + "gate.", c, layer);
  for (int64_t expert = 0; expert < c.experts; ++expert) {
    add_feed_forward(list, fmt::format("{}experts.{}.", prefix, expert), c.hidden,
                     c.expert_intermediate);
  }
  if (c.shared_experts > 0) {
    add_feed_forward(list, prefix + "shared_experts.", c.hidden,
                     c.shared_experts * c.expert_intermediate);
  }
}

}  // namespace

std::string_view name_of(Architecture architecture) { return entry_of(architecture).model_type; }

Architecture architecture_named(std::string_view model_type) {
  if (const ArchitectureName* entry = find_architecture(model_type)) return entry->architecture;
  throw UsageError("unknown architecture \"{}\" (known: {})", model_type, known_architectures());
}

void ModelConfig::validate() const {
  check_range("vocabulary", vocabulary, 1, 1 << 24);
  check_range("hidden", hidden, 1, 1 << 20);
  check_range("layers", layers, 1, 4096);
  check_range("heads", heads, 1, 4096);
  check_range("kv_heads", kv_heads, 1, 4096);
  check_range("head_dim", head_dim, 0, 1 << 14);
  check_range("max_positions", max_positions, 1, 1 << 24);
  check_range("end_of_text", end_of_text, -1, vocabulary - 1);
  if (architecture != Architecture::kOlmoe) check_range("intermediate", intermediate, 1, 1 << 20);
  check_real("rope_theta", rope_theta, 1);
  check_real("norm_eps", norm_eps, 1e-30);
  check_real("init_std", init_std, 1e-30);
  check_real("balance_coefficient", balance_coefficient, 0);
  check_real("z_loss_coefficient", z_loss_coefficient, 0);
  check_attention(*this);
  if (architecture == Architecture::kLlama) {
    check_dense(*this);
  } else {
    check_experts(*this);
    check_router(router, router_shape());
  }
  for (const auto& [name, coefficient] : objectives) check_real(name.c_str(), coefficient, 0);
  if (architecture == Architecture::kOlmoe) check_olmoe(*this);
  if (approximate_parameters(*this) > 1e13) {
    throw UsageError("model config: {:.1e} parameters are more than any model has",
                     approximate_parameters(*this));
  }
}

RouterShape ModelConfig::router_shape() const {
  return {.hidden = hidden,
          .experts = experts,
          .experts_per_token = experts_per_token,
          .vocabulary = vocabulary,
          .layers = expert_layers(),
          .init_std = init_std};
}

ParameterCount count_parameters(const ModelConfig& config) {
  ParameterCount count;
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    int64_t elements = 1;
    for (const int64_t size : tensor.shape) elements *= size;
    count.total += elements;
  }
  count.embedding = config.vocabulary * config.hidden * (config.tied_embeddings ? 1 : 2);
  count.active = count.total;
  if (config.experts > 0) {
    count.per_expert = 3 * config.hidden * config.expert_intermediate;
    count.active -= (config.layers - config.first_dense_layers) *
                    (config.experts - config.experts_per_token) * count.per_expert;
  }
  return count;
}

ModelConfig parse_model_config(const json& j, const std::string& where) {
  const Keys keys(j, where);
  const std::string model_type = keys.text("model_type");
  const ArchitectureName* entry = find_architecture(model_type);
  if (!entry) {
    keys.fail("model_type", fmt::format("is {}, which is unknown (known: {})", quote(model_type),
                                        known_architectures()));
  }
  ModelConfig config;
  config.architecture = entry->architecture;
  read_common(keys, config);
  switch (entry->architecture) {
    case Architecture::kLlama:
      read_llama(keys, config);
      break;
    case Architecture::kOlmoe:
      read_olmoe(keys, config);
      break;
    case Architecture::kDeepseek:
      read_deepseek(keys, config);
      break;
  }
  read_cadre(keys, config);
  try {
    config.validate();
  } catch (const UsageError& error) {
    throw FormatError("{}: {}", where, error.what());
  }
  return config;
}

ModelConfig read_model_config(const std::filesystem::path& folder) {
  const std::filesystem::path file = folder / "config.json";
  return parse_model_config(parse_json(read_file(file), file.string()), file.string());
}

json to_json(const ModelConfig& c) {
  c.validate();
  json j = {
      {"architectures", {entry_of(c.architecture).class_name}},
      {"model_type", name_of(c.architecture)},
      {"vocab_size", c.vocabulary},
      {"hidden_size", c.hidden},
      {"intermediate_size", c.intermediate},
      {"num_hidden_layers", c.layers},
      {"num_attention_heads", c.heads},
      {"num_key_value_heads", c.kv_heads},
      {"hidden_act", "silu"},
      {"max_position_embeddings", c.max_positions},
      {"initializer_range", c.init_std},
      {"rms_norm_eps", c.norm_eps},
      {"rope_theta", c.rope_theta},
      {"rope_scaling", nullptr},
      {"attention_bias", false},
      {"attention_dropout", 0.0},
      {"tie_word_embeddings", c.tied_embeddings},
      {"bos_token_id", c.end_of_text >= 0 ? json(c.end_of_text) : json(nullptr)},
      {"eos_token_id", c.end_of_text >= 0 ? json(c.end_of_text) : json(nullptr)},
      {"pad_token_id", nullptr},
      {"use_cache", true},
      {"torch_dtype", "float32"},
  };
  if (c.architecture == Architecture::kLlama) {
    j["head_dim"] = c.head_width();
    j["mlp_bias"] = false;
  } else {
    add_expert_keys(j, c);
  }
  return j;
}

std::vector<ExpectedTensor> expected_tensors(const ModelConfig& config) {
  std::vector<ExpectedTensor> list;
  list.push_back({"model.embed_tokens.weight", {config.vocabulary, config.hidden}});
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    list.push_back({prefix + "input_layernorm.weight", {config.hidden}});
    add_attention(list, prefix + "self_attn.", config);
    list.push_back({prefix + "post_attention_layernorm.weight", {config.hidden}});
    add_token_layer(list, prefix + "mlp.", config, layer);
  }
  list.push_back({"model.norm.weight", {config.hidden}});
  if (!config.tied_embeddings) {
    list.push_back({"lm_head.weight", {config.vocabulary, config.hidden}});
  }
  return list;
}

}  // namespace cadre
