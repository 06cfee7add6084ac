#pragma once

/// A random router that never learns, and more and more experts as training goes on (Chen et al.,
/// "Sparse MoE as the New Dropout: Scaling Dense and Self-Slimmable Transformers", 2023,
/// SMoE-Dropout). The assignment moves all the same, because the hidden states do. The trained
/// model may run with any k.
///
///   l = R x + b, R ~ N(0, gate_std^2), b = 0; the k(step) largest; weight: softmax over the
///   selected l, so that they sum to 1 at every k.
/// No balance loss, no noise, no capacity. R lies in buffers: neither gradient nor weight decay
/// reaches it, but the gradient passes through the weights to x.

#include <torch/torch.h>

#include "cadre/routing/k_schedule.h"
#include "cadre/routing/router.h"

namespace cadre {

struct RandomExperts {
  KSchedule schedule = {};  ///< in training; the paper's best: linear from E / 2 to E
  int64_t k = 0;            ///< in evaluation; 0 = schedule.last
  double gate_std = 0.02;
};

/// Buffers: weight [E, D], bias [E].
class RandomRouter : public Router {
 public:
  /// Throws UsageError: no experts, a k of 0 or above E, gate_std not above 0.
  RandomRouter(int64_t hidden, int64_t experts, const RandomExperts& options);

  /// Knob: k. Throws UsageError for an input or a knob that does not fit, Error naming the layer
  /// when logits are not finite.
  Routing route(const RouteInput& input) override;
  int64_t experts() const override { return weight.size(0); }
  const RandomExperts& options() const { return options_; }

  torch::Tensor weight, bias;

 private:
  int64_t k_of(const RouteInput& input) const;

  RandomExperts options_;
};

}  // namespace cadre
