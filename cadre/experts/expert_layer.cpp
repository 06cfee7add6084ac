#include "cadre/experts/expert_layer.h"

#include <fmt/format.h>

#include <utility>

#include "cadre/base/error.h"

namespace cadre {
namespace {

void check(const ExpertLayerOptions& options) {
  if (options.hidden < 1 || options.inner < 1 || options.shared_inner < 0) {
    throw UsageError(
        "expert layer: hidden {}, inner {} and shared_inner {} must be 1, 1 and 0 or more",
        options.hidden, options.inner, options.shared_inner);
  }
  if (options.experts < 1) {
    throw UsageError("expert layer: {} experts, there must be at least 1", options.experts);
  }
}

}  // namespace

ExpertLayer::ExpertLayer(const ExpertLayerOptions& options, std::shared_ptr<Router> router)
    : options_(options) {
  check(options);
  const auto [hidden, inner, experts] = std::tuple(options.hidden, options.inner, options.experts);
  gate = router ? std::move(router) : std::make_shared<TopKRouter>(hidden, experts, options.router);
  if (gate->experts() != experts) {
    throw UsageError("expert layer: its router knows {} experts, the layer has {}", gate->experts(),
                     experts);
  }
  register_module("gate", gate);
  const auto normal = [&](int64_t rows, int64_t columns) {
    return torch::empty({experts, rows, columns}).normal_(0.0, options.init_std);
  };
  gate_proj = register_parameter("gate_proj", normal(inner, hidden));
  up_proj = register_parameter("up_proj", normal(inner, hidden));
  down_proj = register_parameter("down_proj", normal(hidden, inner));
  if (options.shared_inner > 0) {
    shared_experts = register_module(
        "shared_experts", std::make_shared<SwiGlu>(hidden, options.shared_inner, options.init_std));
  }
  load_ = torch::zeros({experts}, torch::kInt64);
}

RouteInput ExpertLayer::route_input(const torch::Tensor& hidden,
                                    const LayerContext& context) const {
  const int64_t batch = hidden.size(0), length = hidden.size(1);
  RouteInput input{.hidden = hidden.reshape({batch * length, hidden.size(2)}),
                   .state = context.router_state,
                   .layer = context.layer,
                   .step = context.step,
                   .total_steps = context.total_steps,
                   .seed = context.seed,
                   .draw = context.draw,
                   .mode = is_training() ? RouteMode::kTrain : RouteMode::kEval,
                   .knobs = knobs};
  if (context.token_ids.defined()) input.token_ids = context.token_ids.reshape(-1);
  if (context.padding.defined()) input.padding = context.padding.reshape(-1);
  if (batch > 1) input.sequence = torch::arange(batch).repeat_interleave(length);
  return input;
}

void ExpertLayer::add_objectives(const Routing& routing, const RouteInput& input,
                                 LayerContext& context) {
  for (const RoutingObjective& objective : options_.objectives) {
    context.aux.push_back({fmt::format("{}/layer{}", objective.name, context.layer),
                           objective.evaluate(routing, input) * objective.coefficient});
  }
}

void ExpertLayer::remember(const Routing& routing) {
  last_routing_ = routing.detach();
  stats_.reset();
  if (is_training()) load_ += routing.load();
}

torch::Tensor ExpertLayer::forward(const torch::Tensor& hidden, LayerContext& context) {
  if (hidden.dim() != 3 || hidden.size(2) != options_.hidden) {
    throw UsageError("expert layer {}: hidden states must be [batch, tokens, {}]", context.layer,
                     options_.hidden);
  }
  const RouteInput input = route_input(hidden, context);
  const Routing routing = gate->route(input);
  if (routing.state.defined()) context.router_state = routing.state;
  if (context.pass == Pass::kForward) remember(routing);
  if (is_training()) add_objectives(routing, input, context);
  Routing combined = routing;
  combined.weight = combine_weights(routing, options_.combine);
  auto y = expert_ffn(input.hidden, combined, gate_proj, up_proj, down_proj).view(hidden.sizes());
  return shared_experts ? y + shared_experts->forward(hidden) : y;
}

const RoutingStats& ExpertLayer::stats() const {
  if (!last_routing_.offsets.defined()) {
    throw UsageError("expert layer: no statistics before the first forward pass");
  }
  if (!stats_) stats_ = stats_of(last_routing_);
  return *stats_;
}

torch::Tensor ExpertLayer::take_load() { return std::exchange(load_, torch::zeros_like(load_)); }

}  // namespace cadre
