#pragma once

/// What a forecast of whole passes is worth on a recorded trace: replay with a clock, so that
/// reading ahead takes the time that it takes.
///
/// Every layer computes for one unit of time, an expert's reading takes 1 / reads_per_layer. One
/// read goes on at a time; what a layer needs overtakes what is only expected, and is awaited. A
/// pass begins with its forecast: the expected experts are read in the order of layers, as many as
/// ExpertFlow's division of the cache gives each (plec_slots), whenever the disk rests.

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/base/table.h"
#include "cadre/engine/trace.h"

namespace cadre::engine {

/// By pass, in their order: the experts (layer * experts + expert) it is expected to need.
using Forecasts = std::vector<std::vector<int64_t>>;

struct ForecastCell {
  std::string policy, forecast;
  int64_t capacity = 0;  ///< experts
  int64_t requests = 0, hits = 0;
  int64_t reads = 0;   ///< of needed and of expected experts
  int64_t unused = 0;  ///< reads ahead whose expert left, or was still there, without use
  double stall = 0;    ///< units of time that layers waited, a pass
  double hit_rate() const {
    return requests > 0 ? static_cast<double>(hits) / static_cast<double>(requests) : 0;
  }
};

/// One policy; `forecasts` may be empty: nothing is read ahead. An expert that is on its way when
/// its layer begins is no hit. Throws UsageError when reads_per_layer is not above 0.
ForecastCell replay_forecasts(const RouteTrace& trace, std::string_view policy,
                              const Forecasts& forecasts, int64_t capacity,
                              double reads_per_layer = 1);

/// What a trained predictor says before each of decode_part(all)'s passes: the 2 K likeliest of
/// each layer, united over the pass. Prompts are taken from the other passes. Throws as PathModel
/// does, and UsageError when the trace does not say its tokens.
Forecasts path_forecasts(const RouteTrace& all, const std::filesystem::path& predictor);
/// The true routes: a perfect predictor.
Forecasts true_forecasts(const RouteTrace& trace);

/// lru, lfu and the default policy without forecasts, plec with those given and with true ones, and
/// the bound.
std::vector<ForecastCell> compare_forecasts(const RouteTrace& trace, const Forecasts& forecasts,
                                            const std::vector<int64_t>& capacities,
                                            double reads_per_layer);
Table forecast_table(const std::vector<ForecastCell>& cells);

}  // namespace cadre::engine
