#pragma once

/// The one list of routing losses that a model can have by name (ModelConfig::objectives, `cadre
/// train --objective name=coefficient`, `cadre list objectives`). A new one is its file and a line
/// here.

#include <span>
#include <string_view>

#include "cadre/objectives/routing_objective.h"

namespace cadre {

struct ObjectiveEntry {
  std::string_view name;
  double coefficient;  ///< as published
  std::string_view help;
  std::string_view paper;
  torch::Tensor (*evaluate)(const Routing& routing, const RouteInput& input);
};

std::span<const ObjectiveEntry> objectives_list();

/// The objective with this coefficient. Throws UsageError naming the nearest name.
RoutingObjective make_objective(std::string_view name, double coefficient);

}  // namespace cadre
