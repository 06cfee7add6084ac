#pragma once

/// For tests, and as the smallest example of a recipe: fits y = 2 x by gradient descent. The idea
/// is the gradient; the stub is a step of nothing.

#include <cmath>

#include "cadre/base/random.h"
#include "recipes/harness/recipe.h"

namespace cadre::recipes {

inline Measurements fit_a_line(const ArmRun& run, double rate) {
  Random random(run.seed);
  double slope = random.normal();
  Measurements result;
  run.steps(run.smoke() ? 50 : 200, [&](int64_t step) {
    const double x = random.normal(), error = slope * x - 2 * x;
    if (!run.sabotaged()) slope -= rate * error * x;
    result.curves["error"].x.push_back(static_cast<double>(step));
    result.curves["error"].y.push_back(std::abs(slope - 2));
  });
  result.values["error"] = std::abs(slope - 2);
  return result;
}

inline Recipe line_recipe(const Setting&) {
  return {.stub = "no step is taken",
          .arms = {{.name = "slow",
                    .help = "a small learning rate",
                    .measure = [](const ArmRun& run) { return fit_a_line(run, 0.01); }},
                   {.name = "fast",
                    .help = "a large learning rate",
                    .measure = [](const ArmRun& run) { return fit_a_line(run, 0.2); }}},
          .tables = {{.title = "Error of the slope", .columns = {{"error", "error", 4}}}},
          .accept =
              [](Criterion& criterion) {
                criterion.every_seed(
                    "error of fast / slow",
                    [](const At& at) { return at("fast", "error") / at("slow", "error"); },
                    at_most(0.5));
              },
          .pictures =
              [](const Results& results) {
                return std::vector<Picture>{
                    {"error.svg", LineChart{.title = "error of the slope",
                                            .x_label = "step",
                                            .y_label = "error",
                                            .series = results.series({"slow", "fast"}, "error")}}};
              },
          .remarks = {}};
}

inline RecipeEntry line_entry() {
  return {"line", "A Line (2000)", "gradients fit a line", line_recipe};
}

}  // namespace cadre::recipes
