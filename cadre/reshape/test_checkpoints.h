#pragma once

/// Small checkpoints for tests, and what a folder holds.

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cadre/base/random.h"
#include "cadre/formats/file.h"
#include "cadre/formats/safetensors.h"
#include "cadre/reshape/schema.h"
#include "cadre/reshape/values.h"

namespace cadre::reshape {

struct TestTensor {
  TensorInfo info;
  std::vector<float> values;
};

/// Normal values, a pure function of name and seed.
inline TestTensor random_tensor(const std::string& name, DType type, std::vector<int64_t> shape,
                                uint64_t seed) {
  Random random(seed, {std::hash<std::string>()(name)});
  std::vector<float> values(static_cast<size_t>(elements_of(shape)));
  for (float& value : values) value = random.normal();
  return {{name, type, std::move(shape)}, std::move(values)};
}

inline void write_checkpoint(const std::filesystem::path& folder,
                             const std::vector<TestTensor>& tensors,
                             const nlohmann::json& config = {{"model_type", "llama"}}) {
  std::filesystem::create_directories(folder);
  std::vector<TensorSpec> specs;
  for (const TestTensor& tensor : tensors) specs.push_back(tensor.info);
  ShardedWriter writer(folder, specs);
  for (const TestTensor& tensor : tensors) {
    std::vector<std::byte> bytes(static_cast<size_t>(bytes_of(tensor.info)));
    encode(tensor.info.dtype, tensor.values, bytes);
    writer.write(tensor.info.name, bytes);
  }
  writer.commit();
  write_file(folder / "config.json", config.dump());
}

/// Every tensor's bytes.
inline std::map<std::string, std::vector<std::byte>> bytes_in(const std::filesystem::path& folder) {
  std::map<std::string, std::vector<std::byte>> all;
  const SafetensorsReader reader(folder);
  for (const auto& [name, view] : reader.tensors())
    all[name] = {view.bytes.begin(), view.bytes.end()};
  return all;
}

inline std::vector<float> values_in(const std::filesystem::path& folder, const std::string& name) {
  const SafetensorsReader reader(folder);
  const TensorView& view = reader.tensor(name);
  std::vector<float> values(static_cast<size_t>(view.elements()));
  decode(view.dtype, view.bytes, values);
  return values;
}

/// Two layers of a dense model, small; `type` for matrices.
inline std::vector<TestTensor> dense_model(DType type, uint64_t seed, int64_t layers = 2) {
  const int64_t hidden = 24, inner = 40, vocabulary = 50;
  std::vector<TestTensor> tensors;
  const auto add = [&](const std::string& name, DType kind, std::vector<int64_t> shape) {
    tensors.push_back(random_tensor(name, kind, std::move(shape), seed));
  };
  add("model.embed_tokens.weight", type, {vocabulary, hidden});
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    add(layer + "input_layernorm.weight", DType::kF32, {hidden});
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"})
      add(layer + "self_attn." + name + ".weight", type, {hidden, hidden});
    add(layer + "post_attention_layernorm.weight", DType::kF32, {hidden});
    add(layer + "mlp.gate_proj.weight", type, {inner, hidden});
    add(layer + "mlp.up_proj.weight", type, {inner, hidden});
    add(layer + "mlp.down_proj.weight", type, {hidden, inner});
  }
  add("model.norm.weight", DType::kF32, {hidden});
  add("lm_head.weight", type, {vocabulary, hidden});
  return tensors;
}

inline nlohmann::json dense_config(int64_t layers = 2) {
  return {{"model_type", "llama"},
          {"hidden_size", 24},
          {"num_hidden_layers", layers},
          {"num_attention_heads", 2},
          {"num_key_value_heads", 2},
          {"intermediate_size", 40},
          {"vocab_size", 50},
          {"architectures", {"LlamaForCausalLM"}}};
}

}  // namespace cadre::reshape
