#pragma once

/// What `cadre reshape` does: a TOML file of steps, each an operation on checkpoints or on the step
/// before; the steps between first and last are computed as they are needed and never written.
///
///   [[step]]
///   op = "merge"
///   merge_method = "ties"            # mergekit's vocabulary; models by path
///   base_model = "models/base"
///   models = [{model = "models/a", parameters = {weight = 0.5}}, {model = "models/b"}]
///   parameters = {density = 0.5, weight = 1.0}
///
///   [[step]]                         # reads the step before unless it says inputs = [...]
///   op = "copy"
///   dtype = "BF16"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/reshape/ops.h"
#include "cadre/reshape/run.h"

namespace cadre::reshape {

/// Stands for the result of the step before among a step's inputs.
inline constexpr const char* kPrevious = "@previous";

struct PlanStep {
  std::string op;
  std::vector<std::string> inputs;  ///< paths, or kPrevious
  std::string stats;                ///< statistics file; "" = none
  nlohmann::json parameters;        ///< as the operation's ParamSpecs say
  std::string where;
};

struct PlanFile {
  std::vector<PlanStep> steps;
};

/// Throws UsageError with `where` (and the line of broken TOML): unknown operations and keys are
/// answered with the nearest right one.
PlanFile parse_plan_file(std::string_view toml, const std::string& where);
PlanFile read_plan_file(const std::filesystem::path& path);
/// A step of one operation; for merges the inputs are those of the document `parameters.config`.
PlanStep plan_step(const std::string& op, std::vector<std::string> inputs,
                   nlohmann::json parameters, const std::string& where);

struct ReshapeOptions {
  RunOptions run = {};
  /// Called when all is planned, before the first byte is written, with the bytes to be written.
  std::function<void(const Plan& plan, int64_t bytes)> planned = {};
};

/// Runs the steps into `out`: a folder, or a GGUF file when its name ends in .gguf. Inputs are
/// folders or GGUF files. GGUF files on either side go through a folder beside `out` that is
/// removed at the end (a quantised one is decoded). Throws as plan_op and run do.
RunReport reshape(const PlanFile& file, const std::filesystem::path& out,
                  const ReshapeOptions& options = {});

}  // namespace cadre::reshape
