#pragma once

/// Token-choice top-k routing, the classics in one place: softmax (Shazeer et al., "Outrageously
/// Large Neural Networks", 2017; Dai et al., "DeepSeekMoE", 2024), sigmoid with bias balancing
/// (Wang et al., "Auxiliary-Loss-Free Load Balancing", 2024; DeepSeek-V3, 2024), group-limited
/// (DeepSeek-V2, 2024), with capacity (Lepikhin et al., "GShard", 2021) as an option.
///
///   g = squash(W x); selection: the k largest of g + bias, within the best groups; weight: g of
///   the selected (without bias), divided by their sum when normalised, times `scale`.
/// Logits, squash and selection in fp32; ties go to the lower expert id. The gradient flows through
/// the weights and the probabilities, never through the selection: with normalised weights and k =
/// 1 no task gradient reaches the router.

#include <torch/torch.h>

#include <optional>

#include "cadre/routing/capacity.h"
#include "cadre/routing/router.h"

namespace cadre {

enum class Squash { kSoftmax, kSigmoid };
enum class Weights { kRaw, kNormalized };

struct TopK {
  int64_t k = 2;
  Squash squash = Squash::kSoftmax;
  Weights weights = Weights::kRaw;  ///< DeepSeekMoE: raw; Mixtral, Qwen3, DeepSeek-V3: normalised
  double scale = 1.0;               ///< lambda; V3: 2.5
  int64_t groups = 1;               ///< experts in this many groups of equal size
  /// Only the best so many groups; a group's score is its maximum (V2), or the sum of its two best
  /// when balanced by bias (V3).
  int64_t groups_used = 1;
  /// > 0: balance by a selection bias that moves this much a step (V3: 0.001).
  double bias_update = 0.0;
  /// Absent = dropless; else ceil(factor * k * T / E) pairs an expert.
  std::optional<double> capacity_factor = {};
  DropOrder drop_order = DropOrder::kPosition;
  double init_std = 0.02;
};

/// Parameter: weight [E, D]; buffer e_score_correction_bias [E] when bias_update > 0.
class TopKRouter : public Router {
 public:
  /// Throws UsageError: no experts, k of 0 or above E, groups that do not divide, too few experts
  /// in the groups used, factor <= 0.
  TopKRouter(int64_t hidden, int64_t experts, const TopK& options);

  /// Knobs: k and capacity_factor. Throws UsageError for an input or a knob that does not fit,
  /// Error naming the layer when logits are not finite.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return experts_; }
  bool batch_invariant() const override { return !options_.capacity_factor; }
  bool causal() const override { return !options_.capacity_factor; }
  /// b_i += bias_update * sign(mean load - load_i), kept within [-1, 1]: the width of the scores'
  /// range, beyond which a bias decides alone.
  void after_step(const torch::Tensor& load) override;
  const TopK& options() const { return options_; }

  torch::Tensor weight;
  torch::Tensor e_score_correction_bias;

 private:
  torch::Tensor select(const torch::Tensor& probs, int64_t k) const;

  int64_t experts_;
  TopK options_;
};

}  // namespace cadre
