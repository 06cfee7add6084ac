#pragma once

/// A decoder language model of any known architecture, dense or with expert layers, built from its config.

#include <torch/torch.h>

#include <memory>
#include <vector>

#include "cadre/experts/expert_layer.h"
#include "cadre/formats/model_config.h"
#include "cadre/nn/transformer.h"

namespace cadre {

struct LossParts {
  torch::Tensor total;            ///< cross entropy + all auxiliary losses: what backward() takes
  double cross_entropy = 0;       ///< nats per token
  std::vector<AuxLoss> aux;       ///< detached
};

class LanguageModel {
 public:
  /// Random weights from torch's generator seeded with `seed`. Throws UsageError for an invalid config.
  LanguageModel(const ModelConfig& config, uint64_t seed, Activations activations = Activations::kKeep);

  /// Training loss of inputs and targets [B, T].
  LossParts loss(const torch::Tensor& inputs, const torch::Tensor& targets, int64_t step, int64_t total_steps);
  /// Per-token losses [B, T] without gradient.
  torch::Tensor evaluate(const torch::Tensor& inputs, const torch::Tensor& targets);
  /// Logits [B, T, V] of ids [B, T], continuing the caches when given. No gradient.
  torch::Tensor logits(const torch::Tensor& ids, std::vector<KeyValueCache>* caches = nullptr);

  const ModelConfig& config() const { return config_; }
  Decoder& decoder() { return decoder_; }
  /// (layer index, expert layer), dense layers left out.
  const std::vector<std::pair<int64_t, std::shared_ptr<ExpertLayer>>>& expert_layers() const { return expert_layers_; }
  /// Every learned tensor under its checkpoint name, experts one by one as views into the stacked parameters, in expected_tensors() order.
  std::vector<std::pair<std::string, torch::Tensor>> named_weights();

 private:
  ModelConfig config_;
  uint64_t seed_;
  Decoder decoder_{nullptr};
  std::vector<std::pair<int64_t, std::shared_ptr<ExpertLayer>>> expert_layers_;
};

}  // namespace cadre
