#pragma once

/// What a recipe is: one published system as arms (the method and its baselines), tables, pictures
/// and a criterion. The harness owns seeds, progress, resumption and files; a recipe only says what
/// one arm measures with one seed.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <variant>
#include <vector>

#include "cadre/base/heat_map.h"
#include "cadre/base/plot.h"
#include "recipes/harness/criterion.h"
#include "recipes/harness/results.h"

namespace cadre::recipes {

/// One arm with one seed: what its function is given.
struct ArmRun {
  Setting setting;
  uint64_t seed =
      1;  ///< 1, 2, ...; the same for all arms of a row of runs: use it for the data, too
  std::string label;           ///< "deepseekmoe: fine, seed 2", for the progress line
  std::filesystem::path data;  ///< --data, where a data set is looked for first; may be empty

  bool smoke() const { return setting.size == Size::kSmoke; }
  bool sabotaged() const { return setting.idea == Idea::kStub; }
  /// Runs body(0) ... body(count - 1) behind a progress bar. Throws Interrupted after Ctrl-C. An
  /// arm may call it several times.
  void steps(int64_t count, const std::function<void(int64_t step)>& body) const;
};

struct Arm {
  std::string name;  ///< short: a table's row, a file's name
  std::string help;  ///< one line: what this arm is
  /// Trains and measures. Torch's generator is seeded with run.seed before. Must be a pure function
  /// of `run` and the data.
  std::function<Measurements(const ArmRun& run)> measure;
  int64_t seeds = 0;  ///< at most so many, for reported runs that gate nothing; 0 = all
};

/// A column shows value `value` of every arm as mean ± standard deviation over the seeds.
struct Column {
  std::string value;
  std::string header;
  int digits = 3;  ///< after the point
};

struct TableSpec {
  std::string title;
  std::vector<std::string> arms;  ///< rows; empty = all arms
  std::vector<Column> columns;
};

struct Picture {
  std::string file;  ///< "nmse.svg"
  std::variant<LineChart, HeatMap> chart;
};

struct Recipe {
  std::string stub;  ///< one line: what --sabotage puts in the idea's place
  std::vector<Arm> arms;
  std::vector<TableSpec> tables;
  std::function<void(Criterion& criterion)> accept;
  std::function<std::vector<Picture>(const Results& results)> pictures = {};
  /// Remarks below the tables, made from the results: what does not gate but should be read.
  std::function<std::vector<std::string>(const Results& results)> remarks = {};
};

/// A line of the list of recipes (recipes/recipes.h).
struct RecipeEntry {
  std::string name;
  std::string paper;  ///< title, year
  std::string claim;  ///< one line: what the paper says and we check
  std::function<Recipe(const Setting&)> make;
};

}  // namespace cadre::recipes
