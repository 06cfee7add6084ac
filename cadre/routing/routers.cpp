#include "cadre/routing/routers.h"

#include <array>

#include "cadre/base/error.h"
#include "cadre/routing/null_experts_router.h"
#include "cadre/routing/random_router.h"
#include "cadre/routing/top_k_router.h"
#include "cadre/routing/top_p_router.h"

namespace cadre {
namespace {

/// `shape.layers` routers that know nothing of each other.
template <class R, class Options>
Routers alike(const RouterShape& shape, const Options& options) {
  Routers routers;
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    routers.push_back(std::make_shared<R>(shape.hidden, shape.experts, options));
  }
  return routers;
}

Weights weights_of(const RouterConfig& config) {
  return config.text("weights") == "raw" ? Weights::kRaw : Weights::kNormalized;
}

Routers top_k(const RouterConfig& config, const RouterShape& shape) {
  TopK options = {
      .k = slots_of(config, shape),
      .squash = config.text("squash") == "sigmoid" ? Squash::kSigmoid : Squash::kSoftmax,
      .weights = weights_of(config),
      .scale = config.real("scale"),
      .groups = config.integer("groups"),
      .groups_used = config.integer("groups_used"),
      .bias_update = config.real("bias_update"),
      .init_std = shape.init_std};
  if (config.real("capacity_factor") > 0) options.capacity_factor = config.real("capacity_factor");
  return alike<TopKRouter>(shape, options);
}

Routers top_p(const RouterConfig& config, const RouterShape& shape) {
  return alike<TopPRouter>(
      shape,
      TopP{.p = config.real("p"), .weights = weights_of(config), .init_std = shape.init_std});
}

Routers null_experts(const RouterConfig& config, const RouterShape& shape) {
  const bool all = config.text("weights") == "all_slots";
  return alike<NullExpertsRouter>(
      shape, NullExperts{.nulls = config.integer("nulls"),
                         .k = slots_of(config, shape),
                         .norm = all ? NullNorm::kAllSlots : NullNorm::kTrueOnly,
                         .init_std = shape.init_std});
}

Routers smoe_dropout(const RouterConfig& config, const RouterShape& shape) {
  const int64_t first = config.integer("k_min"), last = config.integer("k_max");
  return alike<RandomRouter>(
      shape, RandomExperts{.schedule = {.form = schedule_named(config.text("schedule")),
                                        .first = first ? first : shape.experts_per_token,
                                        .last = last ? last : shape.experts},
                           .k = config.integer("k"),
                           .gate_std = config.real("gate_std")});
}

constexpr std::array kFactories = {
    RouterFactory{"top_k", top_k},
    RouterFactory{"top_p", top_p},
    RouterFactory{"null_experts", null_experts},
    RouterFactory{"smoe_dropout", smoe_dropout},
};

}  // namespace

std::span<const RouterFactory> router_factories() { return kFactories; }

Routers make_routers(const RouterConfig& config, const RouterShape& shape) {
  check_router(config, shape);
  for (const RouterFactory& factory : kFactories) {
    if (factory.kind == config.kind) return factory.make(config, shape);
  }
  throw Error("no factory makes routers of kind '{}'", config.kind);
}

std::vector<std::pair<std::string, torch::Tensor>> checkpoint_tensors(const Router& router,
                                                                      const RouterConfig& config,
                                                                      const RouterShape& shape,
                                                                      int64_t index) {
  const auto parameters = router.named_parameters();
  const auto buffers = router.named_buffers();
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
  for (const auto& [name, size] : router_kind_named(config.kind).tensors(config, shape, index)) {
    const torch::Tensor* found = parameters.find(name);
    if (!found) found = buffers.find(name);
    if (!found) throw Error("router {} of layer {} has no tensor {}", config.kind, index, name);
    tensors.emplace_back(name, *found);
  }
  return tensors;
}

}  // namespace cadre
