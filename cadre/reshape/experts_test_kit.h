#pragma once

/// For tests: small models with random weights on disk, operations run on them, logits by the
/// engine.

#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "cadre/engine/convert_test_kit.h"
#include "cadre/engine/session.h"
#include "cadre/formats/test_folder.h"
#include "cadre/reshape/ops.h"
#include "cadre/reshape/run.h"

namespace cadre::reshape {

using Tensors = std::map<std::string, std::pair<std::vector<int64_t>, std::vector<float>>>;

inline Tensors random_tensors(const ModelConfig& config, uint64_t seed) {
  Random random(seed);
  Tensors tensors;
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    int64_t count = 1;
    for (const int64_t size : tensor.shape) count *= size;
    const bool norm = tensor.shape.size() == 1;
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = norm ? 1 + 0.1F * random.normal() : 0.2F * random.normal();
    tensors[tensor.name] = {tensor.shape, std::move(values)};
  }
  return tensors;
}

inline void write_model(const std::filesystem::path& folder, const nlohmann::json& config,
                        const Tensors& tensors) {
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", config.dump(2) + "\n");
  engine::small_tokenizer().save(folder / "tokenizer.json");
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : tensors) specs.push_back({name, DType::kF32, tensor.first});
  ShardedWriter writer(folder, specs);
  for (const auto& [name, tensor] : tensors) {
    writer.write(name, std::as_bytes(std::span(tensor.second)));
  }
  writer.commit();
}

inline std::filesystem::path write_random_model(const std::filesystem::path& folder,
                                                const ModelConfig& config, uint64_t seed) {
  write_model(folder, to_json(config), random_tensors(config, seed));
  return folder;
}

/// Two layers without leading dense ones, no shared experts, weights of the chosen sum to 1.
inline ModelConfig moe_config_of(int64_t experts, int64_t used) {
  ModelConfig config = engine::small_config(Architecture::kDeepseek);
  config.shared_experts = 0;
  config.first_dense_layers = 0;
  config.experts = experts;
  config.experts_per_token = used;
  config.normalize_expert_weights = true;
  return config;
}

inline Tensors read_tensors(const std::filesystem::path& folder) {
  const SafetensorsReader reader(folder);
  Tensors tensors;
  for (const auto& [name, view] : reader.tensors()) {
    if (view.dtype != DType::kF32) continue;
    std::vector<float> values(static_cast<size_t>(view.elements()));
    std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
    tensors[name] = {view.shape, std::move(values)};
  }
  return tensors;
}

inline std::filesystem::path reshape(const std::string& op,
                                     const std::vector<std::filesystem::path>& inputs,
                                     const nlohmann::json& params, const std::filesystem::path& out,
                                     const StatsIndex* stats = nullptr) {
  std::vector<CheckpointPtr> checkpoints;
  for (const auto& input : inputs) checkpoints.push_back(open_checkpoint(input));
  run(plan_op(op_named(op), checkpoints, params, stats, op), checkpoints, out);
  return out;
}

inline std::vector<TokenId> some_text() {
  return {5, 40, 260, 17, 99, 3, 3, 200, 121, 270, 64, 8, 1, 77, 150, 31};
}

/// Logits of every position of a text.
inline std::vector<float> logits_of(const std::filesystem::path& folder) {
  const auto model =
      engine::Model::open(folder, {.threads = 1, .quantize_to = kernels::BlockType::kF32});
  engine::Session session(model);
  const auto tokens = some_text();
  const engine::Model::Slice slice = {&session, tokens, engine::Model::Slice::Want::kAll};
  return model->forward({&slice, 1});
}

/// Largest difference, relative to the size of b.
inline double difference(const std::vector<float>& a, const std::vector<float>& b) {
  double most = 0, squares = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    most = std::max(most, std::fabs(double{a.at(i)} - b[i]));
    squares += double{b[i]} * b[i];
  }
  return a.size() == b.size() ? most / std::sqrt(squares / static_cast<double>(b.size())) : 1e9;
}

/// A statistics file of the given tensors.
inline std::filesystem::path write_stats(const std::filesystem::path& path,
                                         const Tensors& statistics) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, tensor] : statistics) specs.push_back({name, DType::kF32, tensor.first});
  SafetensorsWriter writer(path, specs);
  for (const auto& [name, tensor] : statistics) {
    writer.write(name, std::as_bytes(std::span(tensor.second)));
  }
  writer.commit();
  return path;
}

}  // namespace cadre::reshape
