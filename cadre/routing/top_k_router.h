#pragma once

/// Token-choice top-k routing, the classics in one place: softmax (Shazeer et al., "Outrageously Large
/// Neural Networks", 2017; DeepSeekMoE, 2024), sigmoid with bias balancing (Wang et al., "Auxiliary-Loss-Free
/// Load Balancing", 2024; DeepSeek-V3, 2024), group-limited (DeepSeek-V2, 2024), with capacity (Lepikhin et
/// al., "GShard", 2021) as an option.
///
///   g = squash(W x); selection: the k largest of g + bias, within the best groups; weight: g of the
///   selected, divided by their sum when `normalize`, times `scale`.
/// Logits, squash and selection in fp32; ties go to the lower expert id.

#include <torch/torch.h>

#include <optional>

#include "cadre/nn/linear.h"
#include "cadre/routing/router.h"

namespace cadre {

enum class Squash { kSoftmax, kSigmoid };
enum class Weights { kRaw, kNormalized };
enum class DropOrder { kPosition, kScore };  ///< who loses when an expert is full: later tokens, or lower scores

struct TopK {
  int64_t k = 2;
  Squash squash = Squash::kSoftmax;
  Weights weights = Weights::kRaw;   ///< DeepSeekMoE: raw; Mixtral, Qwen3, DeepSeek-V3: normalised
  double scale = 1.0;                ///< lambda; V3: 2.5
  int64_t groups = 1;                ///< experts in this many groups of equal size
  int64_t groups_used = 1;           ///< only the best so many groups; their score is their maximum, or the sum of their two best when balanced by bias
  double bias_update = 0.0;          ///< > 0: balance by a selection bias moved this much a step (V3: 0.001)
  std::optional<double> capacity_factor;  ///< absent = dropless; else ceil(factor * k * T / E) pairs an expert
  DropOrder drop_order = DropOrder::kPosition;
  double init_std = 0.02;
};

/// Parameter: weight [E, D]; buffer e_score_correction_bias [E] when bias_update > 0.
class TopKRouter : public Router {
 public:
  /// Throws UsageError: no experts, k of 0 or above E, groups that do not divide, too few experts in the groups used, factor <= 0.
  TopKRouter(int64_t hidden, int64_t experts, const TopK& options);
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return experts_; }
  bool batch_invariant() const override { return !options_.capacity_factor; }
  bool causal() const override { return !options_.capacity_factor; }
  void after_step(const torch::Tensor& load) override;
  const TopK& options() const { return options_; }

  torch::Tensor weight;
  torch::Tensor e_score_correction_bias;

 private:
  int64_t experts_;
  TopK options_;
};

}  // namespace cadre
