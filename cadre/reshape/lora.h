#pragma once

/// Low-rank adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021) in the
/// files of Hugging Face's PEFT: adapter_config.json and adapter_model.safetensors. W' = W + s B A,
/// s = alpha / r (alpha / sqrt(r) with use_rslora).

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cadre/reshape/ops.h"

namespace cadre::reshape {

struct LoraModule {
  int64_t out = 0, in = 0, rank = 0;
  std::vector<float> a;  ///< [rank, in]
  std::vector<float> b;  ///< [out, rank]
  double scale = 1;      ///< s
};

struct LoraAdapter {
  /// By the name of the base's module, without ".weight": "model.layers.0.self_attn.q_proj".
  std::map<std::string, LoraModule> modules;
  nlohmann::json config = nlohmann::json::object();  ///< adapter_config.json as read
};

/// Throws IoError, FormatError for matrices that do not fit together, UsageError for what is no
/// plain LoRA (DoRA, biases, modules saved whole): names the field.
LoraAdapter read_lora(const std::filesystem::path& folder);
/// One scale and rank a module go into rank_pattern and alpha_pattern. Replaces the folder at once.
void write_lora(const std::filesystem::path& folder, const LoraAdapter& adapter);

/// W + weight * s B A for every module, in float32, rounded once to the base's type; everything
/// else is copied. Throws UsageError naming a module that the base lacks or has in another shape.
Plan merge_lora(const CheckpointPtr& base, const LoraAdapter& adapter, double weight = 1);

struct ExtractLoraOptions {
  int64_t rank = 16;                      ///< smaller where a matrix has fewer rows or columns
  uint64_t seed = 0;                      ///< of the randomised decomposition of large matrices
  std::vector<std::string> modules = {};  ///< last parts of names (q_proj); empty = all matrices
                                          ///< but embeddings and the head
};
/// The best approximation of rank r of tuned - base for every matrix that differs (Eckart & Young).
/// Throws UsageError as extract_delta does, and when nothing differs.
LoraAdapter extract_lora(const Checkpoint& base, const Checkpoint& tuned,
                         const ExtractLoraOptions& options);

/// sum of weight * s B A, exactly where the ranks' sum is within `rank` (0 = no limit), else its
/// best approximation: QR of both factors, then the singular values of the small product, so that
/// no whole matrix is ever formed.
struct WeightedLora {
  const LoraAdapter* adapter;
  double weight = 1;
};
LoraAdapter combine_lora(const std::vector<WeightedLora>& adapters, int64_t rank = 0);

}  // namespace cadre::reshape
