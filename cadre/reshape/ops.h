#pragma once

/// The operations that plan files and commands know by name: one row each.

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/reshape/plan.h"

namespace cadre::reshape {

struct OpInfo {
  const char* name;   ///< in plan files: op = "merge"
  const char* help;   ///< one line
  const char* paper;  ///< title, year; "" = none
  int min_inputs, max_inputs;
  std::vector<ParamSpec> params;
  std::unique_ptr<ReshapeOp> (*make)();
};

std::span<const OpInfo> reshape_ops();
/// Throws UsageError that names the nearest.
const OpInfo& op_named(std::string_view name);

/// Plans one operation: checks the number of inputs and `values` (its parameters as a JSON object)
/// first, and records op, parameters and inputs for the metadata. `where` begins errors.
Plan plan_op(const OpInfo& op, std::span<const CheckpointPtr> inputs, const nlohmann::json& values,
             const StatsIndex* stats, const std::string& where);

}  // namespace cadre::reshape
