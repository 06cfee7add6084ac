#pragma once

/// A model in so many bytes: every matrix, and every expert's matrices on their own, get the type
/// of fewest bits that the budget leaves them, where it hurts least.
///
/// The error of a matrix as a type is measured: the squared error of its outputs over their squared
/// size, for inputs whose components have the mean squares that `cadre calibrate` found
/// (LLM.int8()-style outlier columns count as much as they do in use); without statistics, all
/// alike. An expert's error counts by its share of the router's weight (1 / experts without
/// statistics), any other matrix's fully. What is minimised is the sum (byte_budget.h).
///
/// A layer's stack of experts is cut into one tensor an expert where they take different types:
/// cadre reads such files, llama.cpp does not.

#include <cstdint>
#include <functional>

#include "cadre/engine/convert.h"
#include "cadre/reshape/plan.h"

namespace cadre::reshape {

struct BudgetPlan {
  engine::GgufImage image;  ///< the given one, with stacks cut where they must be
  engine::QuantizePlan types;
  double error = 0;         ///< the sum that was minimised
  int64_t bytes = 0;        ///< of the file
  int64_t least_bytes = 0;  ///< of the smallest one
};

struct BudgetOptions {
  const StatsIndex* stats = nullptr;
  /// Rows of a matrix that are measured, evenly spread.
  int64_t sampled_rows = 256;
  /// Called with the share done, in (0, 1]; may be empty.
  std::function<void(double)> progress = {};
};

/// Chooses types so that engine::quantize_gguf() writes at most `bytes`. Throws UsageError when no
/// choice is small enough (names the least), or for statistics of another model.
BudgetPlan plan_bytes(engine::GgufImage image, int64_t bytes, const BudgetOptions& options = {});

}  // namespace cadre::reshape
