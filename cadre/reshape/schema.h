#pragma once

/// What a checkpoint's tensors are: their roles, layers and experts, whatever the architecture
/// calls them. Operations are written against roles; an expert stored on its own
/// ("mlp.experts.3.up_proj", "experts.3.w3") and one in a stack ("mlp.experts.up_proj" [E, H, D],
/// "mlp.experts.gate_up_proj" [E, 2H, D]) are views of the same role.

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/formats/safetensors.h"

namespace cadre::reshape {

/// A tensor's name, type and shape, known without its values.
using TensorInfo = TensorSpec;

enum class Role {
  kEmbedding,
  kHead,
  kFinalNorm,
  kAttentionNorm,
  kQuery,
  kKey,
  kValue,
  kAttentionOutput,
  kQueryNorm,
  kKeyNorm,
  kFeedForwardNorm,
  kGate,  ///< of a dense feed-forward layer
  kUp,
  kDown,
  kRouter,
  kRouterBias,  ///< added to scores for the selection only (DeepSeek-V3)
  kExpertGate,
  kExpertUp,
  kExpertDown,
  kExpertGateUp,  ///< a stack [E, 2H, D]: gate rows before up rows
  kSharedGate,
  kSharedUp,
  kSharedDown,
  kSharedRouter,  ///< qwen2_moe's gate of its shared expert
  kOther,         ///< latent attention, routers of other kinds, what no list knows
};
/// "embedding", "head", "query", "expert_up" ...; role_named throws UsageError, naming the nearest.
std::string_view name_of(Role role);
Role role_named(std::string_view name);

/// Rows of a tensor of a checkpoint. A tensor of two or more dimensions has elements / last rows of
/// `last` values, one of a single dimension as many rows of one value.
struct SliceRef {
  int checkpoint = 0;  ///< index into the operation's inputs
  std::string name;
  int64_t first_row = 0;
  int64_t rows = -1;  ///< -1 = to the end
};

struct SchemaTensor {
  TensorInfo info;
  Role role = Role::kOther;
  int64_t layer = -1;   ///< -1 = of no layer
  int64_t expert = -1;  ///< -1 = of no expert, or a stack of all
  std::string ending;   ///< "weight", "bias"; "" when the name has none
  bool is_stack() const;
};

int64_t elements_of(const std::vector<int64_t>& shape);
int64_t columns_of(const std::vector<int64_t>& shape);
int64_t rows_of(const std::vector<int64_t>& shape);
int64_t bytes_of(const TensorInfo& info);

struct SchemaCounts {
  int64_t tensors = 0, bytes = 0;
  int64_t experts = 0;            ///< of all layers together
  int64_t total = 0, active = 0;  ///< parameters; active = those that work on one token
};

class Schema {
 public:
  /// `config` is config.json's content (any model_type); tensors in the order given. `where` names
  /// the checkpoint in errors.
  Schema(nlohmann::json config, const std::vector<TensorInfo>& tensors, std::string where);

  const nlohmann::json& config() const { return config_; }
  const std::string& where() const { return where_; }
  std::string model_type() const;
  const std::vector<SchemaTensor>& tensors() const { return tensors_; }

  /// From config.json under whichever key the architecture has; 0 when it has none.
  int64_t layers() const { return layers_; }
  int64_t hidden() const { return hidden_; }
  int64_t heads() const { return heads_; }
  int64_t kv_heads() const { return kv_heads_; }
  int64_t experts() const { return experts_; }  ///< a layer's routed experts; 0 = dense
  int64_t experts_used() const { return experts_used_; }

  /// Null when there is none.
  const SchemaTensor* find(const std::string& name) const;
  const SchemaTensor* find(Role role, int64_t layer = -1, int64_t expert = -1,
                           std::string_view ending = "weight") const;
  /// Throws UsageError that names checkpoint and tensor.
  const SchemaTensor& require(const std::string& name) const;
  const SchemaTensor& require(Role role, int64_t layer = -1, int64_t expert = -1,
                              std::string_view ending = "weight") const;

  /// Experts of a layer that are stored (they may differ between layers); 0 = dense layer.
  int64_t experts_of(int64_t layer) const;
  /// One expert's gate, up or down matrix, wherever it is stored: `role` is kExpertGate, kExpertUp
  /// or kExpertDown; `checkpoint` goes into the reference. Throws UsageError when it is missing.
  SliceRef expert_matrix(Role role, int64_t layer, int64_t expert, int checkpoint = 0) const;
  /// [rows, columns] of that matrix.
  std::vector<int64_t> expert_shape(Role role, int64_t layer, int64_t expert) const;

  SchemaCounts counts() const;

 private:
  struct Stored {
    SliceRef slice;
    std::vector<int64_t> shape;
  };
  Stored stored_expert(Role role, int64_t layer, int64_t expert) const;

  nlohmann::json config_;
  std::string where_;
  std::vector<SchemaTensor> tensors_;
  std::map<std::string, size_t> by_name_;
  std::map<std::tuple<Role, int64_t, int64_t, std::string>, size_t> by_role_;
  std::map<int64_t, int64_t> experts_of_;
  int64_t layers_ = 0, hidden_ = 0, heads_ = 0, kv_heads_ = 0, experts_ = 0, experts_used_ = 0;
};

/// Name of a tensor in the naming of `model_type` (llama, mixtral, olmoe, deepseek, qwen2, qwen3,
/// qwen2_moe, qwen3_moe), e.g. tensor_name("mixtral", Role::kExpertUp, 3, 7) =
/// "model.layers.3.block_sparse_moe.experts.7.w3.weight". Throws UsageError for a role it lacks.
std::string tensor_name(std::string_view model_type, Role role, int64_t layer = -1,
                        int64_t expert = -1, std::string_view ending = "weight");

}  // namespace cadre::reshape
