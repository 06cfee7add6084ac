#include "cadre/reshape/schema.h"

#include <algorithm>
#include <array>
#include <optional>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/engine/checkpoint_source.h"
#include "cadre/formats/json.h"

namespace cadre::reshape {
namespace {

struct RoleName {
  Role role;
  std::string_view name;
  std::string_view gguf;    ///< the engine's name of it, without layer and ending
  std::string_view theirs;  ///< in llama's naming, behind "model.layers.3." when GGUF's has a layer
};
constexpr std::array kRoles = {
    RoleName{Role::kEmbedding, "embedding", "token_embd", "model.embed_tokens"},
    RoleName{Role::kHead, "head", "output", "lm_head"},
    RoleName{Role::kFinalNorm, "final_norm", "output_norm", "model.norm"},
    RoleName{Role::kAttentionNorm, "attention_norm", "attn_norm", "input_layernorm"},
    RoleName{Role::kQuery, "query", "attn_q", "self_attn.q_proj"},
    RoleName{Role::kKey, "key", "attn_k", "self_attn.k_proj"},
    RoleName{Role::kValue, "value", "attn_v", "self_attn.v_proj"},
    RoleName{Role::kAttentionOutput, "attention_output", "attn_output", "self_attn.o_proj"},
    RoleName{Role::kQueryNorm, "query_norm", "attn_q_norm", "self_attn.q_norm"},
    RoleName{Role::kKeyNorm, "key_norm", "attn_k_norm", "self_attn.k_norm"},
    RoleName{Role::kFeedForwardNorm, "feed_forward_norm", "ffn_norm", "post_attention_layernorm"},
    RoleName{Role::kGate, "gate", "ffn_gate", "mlp.gate_proj"},
    RoleName{Role::kUp, "up", "ffn_up", "mlp.up_proj"},
    RoleName{Role::kDown, "down", "ffn_down", "mlp.down_proj"},
    RoleName{Role::kRouter, "router", "ffn_gate_inp", "mlp.gate"},
    RoleName{Role::kRouterBias, "router_bias", "exp_probs_b", "mlp.gate.e_score_correction_bias"},
    RoleName{Role::kExpertGate, "expert_gate", "ffn_gate_exps", "mlp.experts.{}.gate_proj"},
    RoleName{Role::kExpertUp, "expert_up", "ffn_up_exps", "mlp.experts.{}.up_proj"},
    RoleName{Role::kExpertDown, "expert_down", "ffn_down_exps", "mlp.experts.{}.down_proj"},
    RoleName{Role::kExpertGateUp, "expert_gate_up", "", "mlp.experts.gate_up_proj"},
    RoleName{Role::kSharedGate, "shared_gate", "ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
    RoleName{Role::kSharedUp, "shared_up", "ffn_up_shexp", "mlp.shared_experts.up_proj"},
    RoleName{Role::kSharedDown, "shared_down", "ffn_down_shexp", "mlp.shared_experts.down_proj"},
    RoleName{Role::kSharedRouter, "shared_router", "ffn_gate_inp_shexp", "mlp.shared_expert_gate"},
    RoleName{Role::kOther, "other", "", ""},
};

const RoleName& row_of(Role role) {
  return *std::find_if(kRoles.begin(), kRoles.end(), [&](const auto& r) { return r.role == role; });
}

/// Stacks of all experts in one tensor, as newer checkpoints have them, without ".weight".
struct StackName {
  std::string_view ending;
  Role role;
};
constexpr std::array kStacks = {
    StackName{"mlp.experts.gate_up_proj", Role::kExpertGateUp},
    StackName{"mlp.experts.gate_proj", Role::kExpertGate},
    StackName{"mlp.experts.up_proj", Role::kExpertUp},
    StackName{"mlp.experts.down_proj", Role::kExpertDown},
};

std::string without(std::string name, std::string_view ending) {
  if (!ending.empty() && name.ends_with(ending)) name.resize(name.size() - ending.size() - 1);
  return name;
}

std::optional<Role> role_of_gguf(std::string_view name) {
  if (name.starts_with("blk."))
    name.remove_prefix(std::min(name.find('.', 4), name.size() - 1) + 1);
  for (const RoleName& row : kRoles)
    if (!row.gguf.empty() && row.gguf == name) return row.role;
  return std::nullopt;
}

void classify(SchemaTensor& tensor) {
  const std::string& name = tensor.info.name;
  for (const std::string_view ending : {"weight", "bias"})
    if (name.ends_with("." + std::string(ending))) tensor.ending = ending;
  tensor.layer = engine::layer_of(name).value_or(-1);
  if (const auto expert = engine::expert_name_of(name)) {
    tensor.expert = expert->expert;
    tensor.role = role_of_gguf(without(expert->stacked, tensor.ending)).value_or(Role::kOther);
    return;
  }
  const std::string bare = without(name, tensor.ending);
  for (const StackName& stack : kStacks)
    if (tensor.layer >= 0 && tensor.info.shape.size() == 3 && bare.ends_with(stack.ending)) {
      tensor.role = stack.role;
      if (tensor.ending.empty()) tensor.ending = "weight";
      return;
    }
  std::string known = engine::gguf_name_of(name);
  if (known == "exp_probs_b.bias" || known.ends_with(".exp_probs_b.bias")) tensor.ending = "bias";
  tensor.role = role_of_gguf(without(known, tensor.ending)).value_or(Role::kOther);
}

int64_t integer_of(const nlohmann::json& config, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    const auto found = config.find(key);
    if (found != config.end() && found->is_number_integer()) return found->get<int64_t>();
  }
  return 0;
}

}  // namespace

std::string_view name_of(Role role) { return row_of(role).name; }

Role role_named(std::string_view name) {
  std::vector<std::string> names;
  for (const RoleName& row : kRoles) {
    if (row.name == name) return row.role;
    names.emplace_back(row.name);
  }
  throw UsageError("unknown role '{}'{} (known: {})", name, did_you_mean(name, names),
                   fmt::join(names, ", "));
}

bool SchemaTensor::is_stack() const {
  return expert < 0 && (role == Role::kExpertGate || role == Role::kExpertUp ||
                        role == Role::kExpertDown || role == Role::kExpertGateUp);
}

int64_t elements_of(const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

int64_t columns_of(const std::vector<int64_t>& shape) {
  return shape.size() < 2 ? 1 : shape.back();
}

int64_t rows_of(const std::vector<int64_t>& shape) {
  const int64_t columns = columns_of(shape);
  return columns == 0 ? 0 : elements_of(shape) / columns;
}

int64_t bytes_of(const TensorInfo& info) { return elements_of(info.shape) * size_of(info.dtype); }

Schema::Schema(nlohmann::json config, const std::vector<TensorInfo>& tensors, std::string where)
    : config_(std::move(config)), where_(std::move(where)) {
  for (const TensorInfo& info : tensors) {
    SchemaTensor tensor = {.info = info};
    classify(tensor);
    const size_t index = tensors_.size();
    by_name_.emplace(info.name, index);
    if (tensor.role != Role::kOther)
      by_role_.emplace(std::tuple(tensor.role, tensor.layer, tensor.expert, tensor.ending), index);
    layers_ = std::max(layers_, tensor.layer + 1);
    if (tensor.expert >= 0 || tensor.is_stack()) {
      int64_t& count = experts_of_[tensor.layer];
      count = std::max(count, tensor.is_stack() ? info.shape[0] : tensor.expert + 1);
      experts_ = std::max(experts_, count);
    }
    tensors_.push_back(std::move(tensor));
  }
  if (!config_.is_object()) return;
  layers_ = std::max(layers_, integer_of(config_, {"num_hidden_layers"}));
  hidden_ = integer_of(config_, {"hidden_size"});
  heads_ = integer_of(config_, {"num_attention_heads"});
  kv_heads_ = integer_of(config_, {"num_key_value_heads", "num_attention_heads"});
  experts_used_ = integer_of(config_, {"num_experts_per_tok"});
  if (const int64_t said =
          integer_of(config_, {"num_experts", "num_local_experts", "n_routed_experts"}))
    experts_ = said;
}

std::string Schema::model_type() const {
  const auto found = config_.is_object() ? config_.find("model_type") : config_.end();
  return config_.is_object() && found != config_.end() && found->is_string()
             ? found->get<std::string>()
             : "";
}

const SchemaTensor* Schema::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

const SchemaTensor* Schema::find(Role role, int64_t layer, int64_t expert,
                                 std::string_view ending) const {
  const auto found = by_role_.find({role, layer, expert, std::string(ending)});
  return found == by_role_.end() ? nullptr : &tensors_[found->second];
}

const SchemaTensor& Schema::require(const std::string& name) const {
  if (const SchemaTensor* found = find(name)) return *found;
  throw UsageError("{}: tensor {} is missing", where_, quote(name));
}

const SchemaTensor& Schema::require(Role role, int64_t layer, int64_t expert,
                                    std::string_view ending) const {
  if (const SchemaTensor* found = find(role, layer, expert, ending)) return *found;
  throw UsageError("{}: has no {} {}{}{}", where_, name_of(role), ending,
                   layer < 0 ? "" : fmt::format(" in layer {}", layer),
                   expert < 0 ? "" : fmt::format(" for expert {}", expert));
}

int64_t Schema::experts_of(int64_t layer) const {
  const auto found = experts_of_.find(layer);
  return found == experts_of_.end() ? 0 : found->second;
}

Schema::Stored Schema::stored_expert(Role role, int64_t layer, int64_t expert) const {
  if (const SchemaTensor* own = find(role, layer, expert))
    return {{.name = own->info.name, .rows = rows_of(own->info.shape)}, own->info.shape};
  const bool half = role == Role::kExpertGate || role == Role::kExpertUp;
  const SchemaTensor* stack = find(role, layer);
  const SchemaTensor* fused = half ? find(Role::kExpertGateUp, layer) : nullptr;
  const SchemaTensor* from = stack != nullptr ? stack : fused;
  if (from == nullptr || expert < 0 || expert >= from->info.shape[0])
    throw UsageError("{}: has no {} for expert {} in layer {}", where_, name_of(role), expert,
                     layer);
  const int64_t all = from->info.shape[1], rows = stack != nullptr ? all : all / 2;
  const int64_t skip = stack == nullptr && role == Role::kExpertUp ? rows : 0;
  return {{.name = from->info.name, .first_row = expert * all + skip, .rows = rows},
          {rows, from->info.shape[2]}};
}

SliceRef Schema::expert_matrix(Role role, int64_t layer, int64_t expert, int checkpoint) const {
  SliceRef slice = stored_expert(role, layer, expert).slice;
  slice.checkpoint = checkpoint;
  return slice;
}

std::vector<int64_t> Schema::expert_shape(Role role, int64_t layer, int64_t expert) const {
  return stored_expert(role, layer, expert).shape;
}

SchemaCounts Schema::counts() const {
  SchemaCounts counts;
  for (const auto& [layer, experts] : experts_of_) counts.experts += experts;
  for (const SchemaTensor& tensor : tensors_) {
    ++counts.tensors;
    counts.bytes += bytes_of(tensor.info);
    const int64_t elements = elements_of(tensor.info.shape);
    counts.total += elements;
    const bool routed = tensor.expert >= 0 || tensor.is_stack();
    const int64_t experts = routed ? experts_of(tensor.layer) : 0;
    const int64_t used = std::min(experts, std::max<int64_t>(1, experts_used_));
    if (!routed)
      counts.active += elements;
    else
      counts.active += tensor.is_stack()      ? elements / experts * used
                       : tensor.expert < used ? elements
                                              : 0;
  }
  return counts;
}

std::string tensor_name(std::string_view model_type, Role role, int64_t layer, int64_t expert,
                        std::string_view ending) {
  const RoleName& row = row_of(role);
  std::string name(row.theirs);
  if (name.empty()) throw UsageError("role {} has no name of its own", row.name);
  const bool mixtral = model_type == "mixtral";
  if (const size_t place = name.find("{}"); place != std::string::npos)
    name.replace(place, 2, std::to_string(expert));
  if (mixtral && name.starts_with("mlp.")) {
    name = "block_sparse_moe." + name.substr(4);
    constexpr std::array<std::pair<std::string_view, std::string_view>, 3> kOwn = {
        {{"gate_proj", "w1"}, {"up_proj", "w3"}, {"down_proj", "w2"}}};
    for (const auto& [theirs, own] : kOwn)
      if (name.ends_with("." + std::string(theirs)))
        name.replace(name.size() - theirs.size(), theirs.size(), own);
  }
  if (model_type == "qwen2_moe" && name.starts_with("mlp.shared_experts."))
    name.replace(0, 19, "mlp.shared_expert.");
  if (row.gguf.substr(0, 6) != "token_" && row.gguf.substr(0, 6) != "output")
    name = fmt::format("model.layers.{}.{}", layer, name);
  if (role == Role::kRouterBias) return name;
  return ending.empty() ? name : fmt::format("{}.{}", name, ending);
}

}  // namespace cadre::reshape
