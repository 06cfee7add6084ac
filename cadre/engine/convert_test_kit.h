#pragma once

/// For tests: small random checkpoint directories.

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cadre/base/random.h"
#include "cadre/formats/file.h"
#include "cadre/formats/model_config.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/tokenizer.h"

namespace cadre::engine {

inline ModelConfig small_config(cadre::Architecture architecture) {
  ModelConfig config = {.architecture = architecture,
                        .vocabulary = 300,
                        .hidden = 64,
                        .layers = 2,
                        .heads = 4,
                        .kv_heads = 2,
                        .intermediate = 96,
                        .end_of_text = 256};
  if (architecture == cadre::Architecture::kLlama) {
    config.experts = 0;
    return config;
  }
  config.experts = 4;
  config.experts_per_token = 2;
  config.expert_intermediate = 32;
  config.intermediate = architecture == cadre::Architecture::kOlmoe ? 32 : 96;
  if (architecture == cadre::Architecture::kDeepseek) {
    config.shared_experts = 1;
    config.first_dense_layers = 1;
  }
  return config;
}

inline Tokenizer small_tokenizer() {
  const std::vector<std::string_view> texts = {
      "once upon a time there was a small test, and it was a very small test indeed"};
  return Tokenizer::train(texts, {.vocabulary = 280, .min_frequency = 1});
}

/// Random values in [-1, 1), as `type` (F32, F16 bits are not made here: F32 or BF16).
inline std::string random_values(Random& random, int64_t count, DType type) {
  std::string bytes;
  for (int64_t i = 0; i < count; ++i) {
    const float value = 2 * random.uniform() - 1;
    const char* from = reinterpret_cast<const char*>(&value);
    if (type == DType::kBF16)
      bytes.append(from + 2, 2);
    else
      bytes.append(from, 4);
  }
  return bytes;
}

inline void write_weights(const std::filesystem::path& folder,
                          const std::vector<TensorSpec>& specs) {
  Random random(11);
  ShardedWriter writer(folder, specs);
  for (const TensorSpec& spec : specs) {
    int64_t count = 1;
    for (const int64_t size : spec.shape) count *= size;
    const std::string values = random_values(random, count, spec.dtype);
    writer.write(spec.name, std::as_bytes(std::span(values)));
  }
  writer.commit();
}

inline void write_small_checkpoint(const std::filesystem::path& folder, const ModelConfig& config,
                                   DType dtype = DType::kF32) {
  std::filesystem::create_directories(folder);
  nlohmann::json json = to_json(config);
  json["torch_dtype"] = dtype == DType::kF32 ? "float32" : "bfloat16";
  write_file(folder / "config.json", json.dump(2) + "\n");
  small_tokenizer().save(folder / "tokenizer.json");
  std::vector<TensorSpec> specs;
  for (const ExpectedTensor& tensor : expected_tensors(config))
    specs.push_back({tensor.name, dtype, tensor.shape});
  write_weights(folder, specs);
}

}  // namespace cadre::engine
