#pragma once

/// What came out of a quickstart: for the terminal, for scripts, as a page.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cadre/training/routes.h"
#include "cadre/training/trainer.h"
#include "tools/quickstart/samples.h"

namespace cadre {

struct TrainedModel {
  ModelConfig config;
  TrainResult result;
};

struct Summary {
  TrainedModel moe, dense;
  RoutesReport routes;
  std::vector<Sample> samples;
  EngineReport engine;
};

/// Losses at the end (the same number of tokens for both) and after the same time of training: what
/// the faster model took in all. The other one is then in the middle of its schedule, so this errs
/// in favour of the faster.
struct SameTime {
  double seconds = 0, moe = 0, dense = 0;
};
SameTime same_time(const TrainResult& moe, const TrainResult& dense);

nlohmann::ordered_json summary_json(const Summary& summary);
/// Table of losses, parameters, speed.
std::string summary_text(const Summary& summary);
/// report.html.
std::string summary_html(const Summary& summary);

}  // namespace cadre
