#pragma once

/// Router + dispatch + experts + combine (+ shared experts that always work):
///   y_t = shared(x_t) + sum over t's pairs of weight * E_e(x_t),  E_e a SwiGLU of inner width H.
/// (Dai et al., "DeepSeekMoE", 2024, eq. 9-11.) Dropless unless the router has a capacity.

#include <torch/torch.h>

#include <memory>
#include <optional>
#include <vector>

#include "cadre/experts/combine.h"
#include "cadre/experts/expert_ffn.h"
#include "cadre/nn/feed_forward.h"
#include "cadre/objectives/routing_objective.h"
#include "cadre/routing/router.h"
#include "cadre/routing/top_k_router.h"

namespace cadre {

struct ExpertLayerOptions {
  int64_t hidden;   ///< D
  int64_t inner;    ///< H of one routed expert
  int64_t experts;  ///< E, at least 1
  int64_t shared_inner =
      0;             ///< inner width of the shared expert(s), fused into one SwiGLU; 0 = none
  TopK router = {};  ///< used unless a router object is handed over
  std::vector<RoutingObjective> objectives = {};
  double init_std = 0.02;
  Combine combine = Combine::kWeighted;
};

/// Modules: gate (the router), shared_experts. Parameters: gate_proj, up_proj [E, H, D], down_proj
/// [E, D, H] ~ N(0, init_std^2) (stacked; a checkpoint stores them per expert under its
/// architecture's names).
class ExpertLayer : public TokenLayer {
 public:
  /// Throws UsageError for sizes below 1 or a router of another number of experts.
  explicit ExpertLayer(const ExpertLayerOptions& options, std::shared_ptr<Router> router = nullptr);

  /// Reads and writes context.router_state. In training mode, also adds the objectives to
  /// context.aux, each times its coefficient, named like "balance/layer3", and counts the load.
  torch::Tensor forward(const torch::Tensor& hidden, LayerContext& context) override;

  /// The decision of the last forward pass, without gradients.
  const Routing& last_routing() const { return last_routing_; }
  /// Its statistics, computed when first asked for. Throws UsageError before any forward pass.
  const RoutingStats& stats() const;
  /// Pairs per expert [E] int64 in training since the last call, then reset: what after_step() of
  /// the router wants.
  torch::Tensor take_load();

  RoutingKnobs knobs;  ///< overrides for serving and sweeps
  const ExpertLayerOptions& options() const { return options_; }
  std::shared_ptr<Router> gate;
  std::shared_ptr<SwiGlu> shared_experts;
  torch::Tensor gate_proj, up_proj, down_proj;

 private:
  RouteInput route_input(const torch::Tensor& hidden, const LayerContext& context) const;
  void remember(const Routing& routing);
  void add_objectives(const Routing& routing, const RouteInput& input, LayerContext& context);

  ExpertLayerOptions options_;
  Routing last_routing_;
  mutable std::optional<RoutingStats> stats_;
  torch::Tensor load_;
};

}  // namespace cadre
