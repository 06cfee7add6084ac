#pragma once

/// Top-k of noisy logits, so that in training other experts than the favourites get their chance.
///
///   kLearned (Shazeer et al., "Outrageously Large Neural Networks", 2017, eq. 3-5):
///     h = W x + N(0, 1) * softplus(W_noise x); the k largest; weight: softmax over the selected h.
///   kFixed (Riquelme et al., "Scaling Vision with Sparse Mixture of Experts", 2021, sec. 2):
///     h = W x + N(0, 1) * noise / E; g = softmax(h) over all; the k largest; weight: g as it is.
/// In evaluation there is no noise. `logits` of the routing are the clean W x, `scores` the noisy
/// h, `probs` their softmax.

#include <torch/torch.h>

#include "cadre/routing/router.h"

namespace cadre {

enum class RouterNoise { kLearned, kFixed };

struct NoisyTopK {
  int64_t k = 2;
  RouterNoise noise = RouterNoise::kFixed;
  double scale = 1.0;  ///< factor on the noise; kFixed: over E
  double init_std = 0.02;
};

/// Parameters: weight [E, D]; noise_weight [E, D], zeros (Shazeer: so that training begins with
/// equal noise and load), when learned.
class NoisyTopKRouter : public Router {
 public:
  /// Throws UsageError: no experts, k of 0 or above E, scale below 0.
  NoisyTopKRouter(int64_t hidden, int64_t experts, const NoisyTopK& options);

  /// Knob: k. Throws UsageError for an input or a knob that does not fit, Error naming the layer
  /// when logits are not finite.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return weight.size(0); }
  const NoisyTopK& options() const { return options_; }

  torch::Tensor weight, noise_weight;

 private:
  torch::Tensor noisy(const RouteInput& input, const torch::Tensor& logits) const;

  NoisyTopK options_;
};

}  // namespace cadre
