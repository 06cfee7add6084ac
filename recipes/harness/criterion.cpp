#include "recipes/harness/criterion.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace cadre::recipes {

bool Bound::admits(double number) const {
  if (!std::isfinite(number)) return false;
  switch (side) {
    case Side::kAtMost:
      return number <= value;
    case Side::kAtLeast:
      return number >= value;
    case Side::kMoreThan:
      return number > value;
  }
  return false;
}

std::string Bound::str() const {
  const char* sign = side == Side::kAtMost ? "<=" : side == Side::kAtLeast ? ">=" : ">";
  return fmt::format("{} {:g}", sign, value);
}

void Criterion::every_seed(const std::string& what, const Figure& figure, const Bound& bound) {
  Check check{fmt::format("{} {}{}", what, bound.str(), smoke() ? "" : ", every seed"), {}, true};
  for (const uint64_t seed : results_.seeds()) {
    const double number = figure([&](const std::string& arm, const std::string& value) {
      return results_.value(arm, seed, value);
    });
    check.values.push_back(number);
    check.passed = check.passed && bound.admits(number);
  }
  checks_.push_back(check);
}

void Criterion::on_means(const std::string& what, const Figure& figure, const Bound& bound) {
  const double number = figure(
      [&](const std::string& arm, const std::string& value) { return results_.mean(arm, value); });
  checks_.push_back(
      {fmt::format("{} {}, on the means", what, bound.str()), {number}, bound.admits(number)});
}

bool Criterion::passed() const {
  return !checks_.empty() && std::all_of(checks_.begin(), checks_.end(),
                                         [](const Check& check) { return check.passed; });
}

}  // namespace cadre::recipes
