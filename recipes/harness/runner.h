#pragma once

/// Runs a recipe: every arm with every seed, each stored when it is finished, so that an
/// interrupted run goes on where it stopped; then tables, pictures and the criterion.

#include <filesystem>
#include <string>
#include <vector>

#include "cadre/base/error.h"
#include "recipes/harness/recipe.h"

namespace cadre::recipes {

/// Ctrl-C or `kill`: what is finished is stored.
class Interrupted : public Error {
 public:
  using Error::Error;
  int exit_code() const noexcept override;
};

/// What a recipe returns whose criterion does not hold: neither the user's mistake nor a fault.
constexpr int kCriterionFailed = 3;

struct RunOptions {
  Setting setting;
  int64_t seeds = 0;           ///< 0 = 3, in a smoke run 1
  std::filesystem::path data;  ///< where data sets are looked for first; may be empty
  std::filesystem::path out;   ///< gets runs/ARM-seedN.json, results.json, RESULTS.md, pictures
};

struct Outcome {
  Recipe recipe;
  Results results;
  std::vector<Check> checks;
  bool passed = false;
  std::vector<std::string> pictures;  ///< file names within the out folder
  std::vector<std::string> remarks;
};

/// Stored runs of the same program, setting and data folder are read, not run again. Throws
/// Interrupted, and whatever an arm throws.
Outcome run_recipe(const RecipeEntry& entry, const RunOptions& options);

}  // namespace cadre::recipes
