#pragma once

/// One interface for every router (Routing = one choice for each of six stages: affinity, squash,
/// score, select, weight, post; see docs/routing.md).

#include <torch/torch.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cadre/routing/routing.h"

namespace cadre {

enum class RouteMode { kTrain, kEval };

/// What a caller may override at run time without retraining.
struct RoutingKnobs {
  std::optional<int64_t> k;
  std::optional<double> p;
  std::optional<double> capacity_factor;
};

struct RouteInput {
  torch::Tensor hidden;     ///< [T, D]
  torch::Tensor token_ids;  ///< [T] int64; undefined when there are none
  torch::Tensor
      sequence;  ///< [T] int64: the sequence each token belongs to; undefined = one sequence
  torch::Tensor padding;  ///< [T] bool, true = padding; undefined = none
  torch::Tensor state;    ///< [T, p] from the layer before; undefined = none
  int64_t layer = 0, step = 0, total_steps = 0;
  uint64_t seed = 0;  ///< with (step, layer, draw) keys whatever a router draws
  int64_t draw = 0;   ///< which of several stochastic passes over the same batch
  RouteMode mode = RouteMode::kEval;
  RoutingKnobs knobs;
};

/// Maps tokens to experts. Selection is a pure function of (weights, input, step, seed).
class Router : public torch::nn::Module {
 public:
  virtual Routing route(const RouteInput& input) = 0;
  virtual int64_t experts() const = 0;
  /// Row t depends on token t (and those before it) only.
  virtual bool causal() const { return true; }
  /// A token's routing does not depend on what else is in the batch.
  virtual bool batch_invariant() const { return true; }
  /// Called once after each optimiser step with the pairs per expert [E] of that step (all
  /// micro-batches), for routers that adapt without gradients.
  virtual void after_step(const torch::Tensor& /*load*/) {}
};

}  // namespace cadre
