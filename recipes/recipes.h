#pragma once

/// The one list of recipes: `cadre recipe list`, the tests and docs/zoo.md are made of it. A new
/// recipe is a folder recipes/NAME (README.md, one source file) and a line in recipes.cpp.

#include <string_view>
#include <vector>

#include "recipes/harness/recipe.h"

namespace cadre::recipes {

const std::vector<RecipeEntry>& all_recipes();

/// Throws UsageError when there is none of that name.
const RecipeEntry& recipe_named(std::string_view name);

// One factory a folder.
Recipe dynamic_routing(const Setting& setting);
Recipe deepseekmoe(const Setting& setting);
Recipe adamoe(const Setting& setting);
Recipe smoe_dropout(const Setting& setting);
Recipe sparse_ot(const Setting& setting);
Recipe thor(const Setting& setting);
Recipe rmoe(const Setting& setting);
Recipe union_of_experts(const Setting& setting);
Recipe compeft(const Setting& setting);
Recipe knowledge_concentration(const Setting& setting);
Recipe mc_smoe(const Setting& setting);
Recipe factorllm(const Setting& setting);
Recipe composition_of_experts(const Setting& setting);
Recipe glider(const Setting& setting);

}  // namespace cadre::recipes
