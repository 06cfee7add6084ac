#pragma once

/// A checkpoint directory (config.json, *.safetensors, tokenizer.json) as a TensorSource: its keys
/// and tensors under GGUF's names.

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cadre/engine/key_values.h"
#include "cadre/engine/tensor_source.h"

namespace cadre::engine {

/// Throws IoError, FormatError.
std::unique_ptr<TensorSource> open_checkpoint(const std::filesystem::path& folder);

/// How tensors of all experts hold an expert's matrices.
enum class StackForm {
  kRows,            ///< [E, rows, columns], gate and up together or apart (granite)
  kDownTransposed,  ///< [E * inner, hidden] all three (dbrx)
  kAllTransposed    ///< [E, columns, rows], gate and up row by row in turn (gpt-oss)
};

/// config.json in GGUF's terms. Throws FormatError that names the key of config.json.
struct CheckpointConfig {
  std::string architecture;
  RopeLayout rope;
  KeyValues keys;
  StackForm stacks = StackForm::kRows;
  std::map<std::string, std::vector<float>> vectors = {};  ///< what GGUF has as tensors
};
CheckpointConfig read_checkpoint_config(const nlohmann::json& config, const std::string& where);

/// GGUF's name of a directory's tensor, "" when it has none (an expert's matrix). Stacks of experts
/// have names of their own: "blk.3.ffn_up_exps.weight" for expert 7 of layer 3's "up_proj".
std::string gguf_name_of(const std::string& name);
struct ExpertName {
  std::string stacked;
  int64_t expert;
};
std::optional<ExpertName> expert_name_of(const std::string& name);
/// The layer a tensor belongs to.
std::optional<int64_t> layer_of(const std::string& name);

}  // namespace cadre::engine
