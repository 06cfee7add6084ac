#pragma once

/// A recipe's results for people and scripts.

#include <nlohmann/json.hpp>

#include <filesystem>
#include <string>
#include <vector>

#include "recipes/harness/runner.h"

namespace cadre::recipes {

/// Where and when a recipe ran.
struct Occasion {
  std::string command;  ///< as one would type it
  std::string date;     ///< UTC, "2025-01-31"
  std::string machine;  ///< "AMD EPYC 9R14, 2 cores, 7.6 GiB, 2 threads"
};
Occasion occasion_now(const std::string& command);

enum class Markup { kPlain, kMarkdown };

/// Tables, remarks and the criterion with its verdict.
std::string outcome_text(const RecipeEntry& entry, const Outcome& outcome, Markup markup);
/// RESULTS.md: the same with occasion and pictures.
std::string results_markdown(const RecipeEntry& entry, const Outcome& outcome,
                             const Occasion& occasion);
nlohmann::ordered_json results_json(const RecipeEntry& entry, const Outcome& outcome,
                                    const Occasion& occasion);

/// docs/zoo.md from every recipe's FOLDER/NAME/results.json; one without results is listed as not
/// measured. Throws FormatError for a file that is no recipe's result.
std::string zoo_markdown(const std::vector<RecipeEntry>& recipes,
                         const std::filesystem::path& folder);

}  // namespace cadre::recipes
