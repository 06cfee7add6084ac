#pragma once

/// Training results for people and scripts.

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cadre/base/table.h"
#include "cadre/training/trainer.h"

namespace cadre {

/// {validation_loss, domains: {name: loss}, steps, tokens, seconds, curve: [{step, tokens, seconds,
/// loss}]}
nlohmann::ordered_json to_json(const TrainResult& result);

/// One row a domain and one for the mean, one column a model; all evaluated on the same domains.
Table losses_table(const std::vector<std::pair<std::string, Evaluation>>& models);

/// Runs the trainer with a live display on stderr; says so when it resumes and when Ctrl-C stopped
/// it.
TrainResult run_with_display(Trainer& trainer, const std::string& label, int64_t steps);

/// The validation loss when `seconds` of training had passed, linear between the curve's points;
/// the first (last) point's loss before (after) them. The curve must not be empty.
double loss_at(const std::vector<TrainResult::Point>& curve, double seconds);

}  // namespace cadre
