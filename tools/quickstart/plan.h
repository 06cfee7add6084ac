#pragma once

/// How long to train: decided once, by a measurement on a copy of each model, and kept in
/// plan.json, so that a run that was interrupted goes on with the same numbers.

#include <filesystem>
#include <map>
#include <string>

#include "cadre/data/token_batches.h"
#include "tools/quickstart/options.h"

namespace cadre {

struct Plan {
  std::map<std::string, std::string>
      options;  ///< those that decide the numbers, as they were given
  int64_t steps = 0, warmup_steps = 0, evaluate_every = 0;
  double moe_seconds = 0, dense_seconds = 0;  ///< a step, as measured; 0 = not measured
};

/// The options that decide the numbers.
std::map<std::string, std::string> deciding_options(const CommandLine& line);

bool has_plan(const std::filesystem::path& out);
/// Throws FormatError; UsageError when it was made with other options (names the first).
Plan load_plan(const std::filesystem::path& out, const std::map<std::string, std::string>& options);

/// Measures both models when there is a limit of minutes, and writes plan.json. The steps are the
/// same for both models: what the slower one can do.
Plan make_plan(const QuickstartOptions& options, const ModelConfig& moe, const ModelConfig& dense,
               const TokenBatches& batches, std::map<std::string, std::string> deciding);

/// The steps that fit: `seconds` in all, `step_seconds` for one, `evaluation_steps` the cost of all
/// evaluations in steps. At least 1, at most `wanted`.
int64_t steps_within(double seconds, double step_seconds, double evaluation_steps, int64_t wanted);

}  // namespace cadre
