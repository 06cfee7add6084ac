#pragma once

/// What builds the routers of a model. Their names, options and properties stand in
/// cadre/formats/router_kinds.h, where the run wing and the command line read them, too; a new
/// router is its own file, an entry there and a line here (docs/routing.md).

#include <memory>
#include <span>
#include <vector>

#include "cadre/formats/router_kinds.h"
#include "cadre/routing/router.h"

namespace cadre {

/// One router a layer with experts, from the lowest.
using Routers = std::vector<std::shared_ptr<Router>>;

struct RouterFactory {
  std::string_view kind;
  /// All layers at once, because some share parts. Draws initial weights from torch's generator.
  Routers (*make)(const RouterConfig& config, const RouterShape& shape);
};

/// One for each of router_kinds(), in that order.
std::span<const RouterFactory> router_factories();

/// The routers of a whole model. Throws UsageError for a config that does not fit the shape. A
/// standard config has no kind: its routers are its architecture's.
Routers make_routers(const RouterConfig& config, const RouterShape& shape);

/// The router's parameters and buffers that a checkpoint holds for the `index`-th layer with
/// experts, under the names and in the order of its kind's `tensors`.
std::vector<std::pair<std::string, torch::Tensor>> checkpoint_tensors(const Router& router,
                                                                      const RouterConfig& config,
                                                                      const RouterShape& shape,
                                                                      int64_t index);

}  // namespace cadre
