#include "recipes/recipes.h"

#include <algorithm>

#include "cadre/base/error.h"

namespace cadre::recipes {

const std::vector<RecipeEntry>& all_recipes() {
  static const std::vector<RecipeEntry> recipes = {};
  return recipes;
}

const RecipeEntry& recipe_named(std::string_view name) {
  const auto& recipes = all_recipes();
  const auto found = std::find_if(recipes.begin(), recipes.end(),
                                  [&](const RecipeEntry& entry) { return entry.name == name; });
  if (found == recipes.end()) {
    throw UsageError("no recipe is called '{}' (cadre recipe list shows them)", name);
  }
  return *found;
}

}  // namespace cadre::recipes
