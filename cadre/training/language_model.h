#pragma once

/// A decoder language model of any known architecture, dense or with expert layers, built from its
/// config.

#include <torch/torch.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cadre/experts/expert_layer.h"
#include "cadre/formats/model_config.h"
#include "cadre/nn/transformer.h"
#include "cadre/routing/routers.h"
#include "cadre/training/tensor_file.h"

namespace cadre {

struct LossParts {
  torch::Tensor total;       ///< cross entropy + all auxiliary losses: what backward() takes
  double cross_entropy = 0;  ///< nats per token; of two passes the mean
  std::vector<AuxLoss> aux;  ///< detached
};

class LanguageModel {
 public:
  /// Random weights from torch's generator seeded with `seed`. Throws UsageError for an invalid
  /// config.
  LanguageModel(const ModelConfig& config, uint64_t seed,
                Activations activations = Activations::kKeep);

  /// Training loss of inputs and targets [B, T]; target -100 = not counted.
  LossParts loss(const torch::Tensor& inputs, const torch::Tensor& targets, int64_t step,
                 int64_t total_steps);
  /// The same of two passes over the batch, in which routers that draw draw anew, and the term that
  /// makes them predict alike (cadre/objectives/consistency.h), reported as "consistency" in aux:
  ///   total = CE_1 + CE_2 + coefficient * divergence + both passes' auxiliary losses.
  LossParts consistent_loss(const torch::Tensor& inputs, const torch::Tensor& targets, int64_t step,
                            int64_t total_steps, double coefficient);
  /// Per-token losses [B, T] without gradient.
  torch::Tensor evaluate(const torch::Tensor& inputs, const torch::Tensor& targets);
  /// Logits [B, T, V] of ids [B, T], continuing the caches (one a layer) when given. No gradient.
  /// With caches, a router that looks ahead is replaced by the fallback its config names; throws
  /// UsageError when it names none.
  torch::Tensor logits(const torch::Tensor& ids, std::vector<KeyValueCache>* caches = nullptr);
  /// The same for the last position only, [B, V]: what generation needs.
  torch::Tensor next_logits(const torch::Tensor& ids, std::vector<KeyValueCache>* caches = nullptr);
  /// Final hidden states [B, T, D]. No gradient.
  torch::Tensor hidden_states(const torch::Tensor& ids,
                              std::vector<KeyValueCache>* caches = nullptr);

  const ModelConfig& config() const { return config_; }
  Decoder& decoder() { return decoder_; }
  /// (layer index, expert layer), dense layers left out.
  const std::vector<std::pair<int64_t, std::shared_ptr<ExpertLayer>>>& expert_layers() const {
    return expert_layers_;
  }
  /// Every tensor of the checkpoint under its name, experts one by one as views into the stacked
  /// parameters, in expected_tensors() order. Detached: writing to them changes the model.
  NamedTensors named_weights();

 private:
  /// Of a training pass, the `draw`-th over its batch.
  LayerContext training_context(const torch::Tensor& inputs, int64_t step, int64_t total_steps,
                                int64_t draw) const;

  ModelConfig config_;
  uint64_t seed_;
  Decoder decoder_{nullptr};
  std::vector<std::pair<int64_t, std::shared_ptr<ExpertLayer>>> expert_layers_;
};

}  // namespace cadre
