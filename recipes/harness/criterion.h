#pragma once

/// When a recipe's claim holds: checks that compare arms of the same run.

#include <functional>
#include <string>
#include <vector>

#include "recipes/harness/results.h"

namespace cadre::recipes {

struct Check {
  std::string text;            ///< "NMSE of fine / gshard <= 0.9, every seed"
  std::vector<double> values;  ///< what was compared with the bound
  bool passed = false;
};

/// The bound a number is held to. A number that is not finite passes none.
struct Bound {
  enum class Side { kAtMost, kAtLeast, kMoreThan } side;
  double value;
  bool admits(double number) const;
  std::string str() const;  ///< "<= 0.9"
};
inline Bound at_most(double value) { return {Bound::Side::kAtMost, value}; }
inline Bound at_least(double value) { return {Bound::Side::kAtLeast, value}; }
inline Bound more_than(double value) { return {Bound::Side::kMoreThan, value}; }

/// Values of one seed's arms, or of their means: at("fine", "nmse").
using At = std::function<double(const std::string& arm, const std::string& value)>;
using Figure = std::function<double(const At& at)>;

class Criterion {
 public:
  explicit Criterion(const Results& results) : results_(results) {}

  const Results& results() const { return results_; }
  bool smoke() const { return results_.setting().size == Size::kSmoke; }

  /// The figure, made of one seed's values, keeps the bound with every seed.
  void every_seed(const std::string& what, const Figure& figure, const Bound& bound);
  /// The figure made of the means over all seeds keeps the bound.
  void on_means(const std::string& what, const Figure& figure, const Bound& bound);

  const std::vector<Check>& checks() const { return checks_; }
  /// True when there are checks and all passed.
  bool passed() const;

 private:
  const Results& results_;
  std::vector<Check> checks_;
};

}  // namespace cadre::recipes
