#pragma once

/// Router + dispatch + experts + combine (+ shared experts that always work):
///   y_t = shared(x_t) + sum over t's pairs of weight * E_e(x_t),  E_e a SwiGLU of inner width H.
/// (Dai et al., "DeepSeekMoE", 2024, eq. 9-11.) Dropless unless the router has a capacity.

#include <torch/torch.h>

#include <memory>
#include <vector>

#include "cadre/nn/feed_forward.h"
#include "cadre/objectives/routing_objective.h"
#include "cadre/routing/router.h"
#include "cadre/routing/top_k_router.h"

namespace cadre {

/// All experts' SwiGLU as one differentiable grouped computation with dispatch and combine:
/// x [T, D], routing over E experts, w_gate and w_up [E, H, D], w_down [E, D, H]; returns [T, D].
/// Gradients reach x, the three weights and routing.weight.
torch::Tensor expert_ffn(const torch::Tensor& x, const Routing& routing, const torch::Tensor& w_gate,
                         const torch::Tensor& w_up, const torch::Tensor& w_down);

struct ExpertLayerOptions {
  int64_t hidden;            ///< D
  int64_t inner;             ///< H of one routed expert
  int64_t experts;           ///< E, at least 1
  int64_t shared_inner = 0;  ///< inner width of the shared expert(s) fused into one SwiGLU; 0 = none
  TopK router = {};          ///< used unless a router object is handed over
  std::vector<RoutingObjective> objectives = {};
  double init_std = 0.02;
};

/// Modules: gate (the router), shared_experts. Parameters: gate_proj, up_proj [E, H, D], down_proj [E, D, H]
/// (stacked; a checkpoint stores them per expert under its architecture's names).
class ExpertLayer : public TokenLayer {
 public:
  explicit ExpertLayer(const ExpertLayerOptions& options, std::shared_ptr<Router> router = nullptr);

  torch::Tensor forward(const torch::Tensor& hidden, LayerContext& context) override;

  /// Statistics of the last forward pass; with a gradient-free copy of the decision when `keep_routing` is set.
  const RoutingStats& stats() const { return stats_; }
  const Routing& last_routing() const { return last_routing_; }
  enum class Keep { kStats, kRouting };
  void keep(Keep what) { keep_ = what; }
  /// Pairs per expert [E] since the last call, then reset: what after_step() of the router wants.
  torch::Tensor take_load();

  RoutingKnobs knobs;  ///< overrides for serving and sweeps
  const ExpertLayerOptions& options() const { return options_; }
  std::shared_ptr<Router> gate;
  std::shared_ptr<SwiGlu> shared_experts;
  torch::Tensor gate_proj, up_proj, down_proj;

 private:
  ExpertLayerOptions options_;
  Keep keep_ = Keep::kStats;
  RoutingStats stats_;
  Routing last_routing_;
  torch::Tensor load_;
};

}  // namespace cadre
