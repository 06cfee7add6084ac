#pragma once

/// The domain x expert report for people and scripts: terminal, pictures, HTML, JSON.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cadre/base/heat_map.h"
#include "cadre/training/routes.h"

namespace cadre {

/// An expert that works for one domain more than for the others.
struct Specialist {
  int64_t layer = 0, expert = 0;
  std::string domain;
  double of_its_work =
      0;  ///< share of the expert's work that is this domain's, all domains weighing the same
  double of_domain = 0;  ///< share of the domain's work that the expert does
};

/// The most specialised experts first, at most `count`. Experts that do less than a quarter of an
/// even share are left out: a rarely used expert is specialised by chance.
std::vector<Specialist> specialists_of(const RoutesReport& report, size_t count);

/// One layer: rows are domains, columns experts; brightness 0 to 4 times an even share.
HeatMap layer_map(const RoutesReport& report, const LayerRoutes& layer);
/// All layers below each other.
HeatMap whole_map(const RoutesReport& report);

/// Differences to another model; empty = there is none.
using Differences = std::vector<LayerDifference>;

/// Heat maps of every layer, experts a token, the specialists, for a terminal (colours when stdout
/// shows them).
std::string routes_text(const RoutesReport& report, const Differences& differences = {});
/// The same as a part of an HTML page.
std::string routes_html(const RoutesReport& report, const Differences& differences = {});
nlohmann::ordered_json routes_json(const RoutesReport& report, const Differences& differences = {});

}  // namespace cadre
