#pragma once

/// What the arms measured, seed by seed.

#include <nlohmann/json.hpp>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "cadre/base/plot.h"

namespace cadre::recipes {

enum class Size { kFull, kSmoke };
/// kStub: --sabotage, the idea is swapped for a stub that the criterion must notice.
enum class Idea { kReal, kStub };

struct Setting {
  Size size = Size::kFull;
  Idea idea = Idea::kReal;
};

struct Curve {
  std::vector<double> x, y;
};

/// Of one arm with one seed.
struct Measurements {
  std::map<std::string, double> values;
  std::map<std::string, Curve> curves;
};

struct RunResult {
  std::string arm;
  uint64_t seed = 0;
  double seconds = 0;
  Measurements measured;
};

struct Spread {
  double mean = 0;
  double deviation = 0;  ///< sample standard deviation; 0 of a single value
};
Spread spread_of(const std::vector<double>& values);

class Results {
 public:
  Results(const Setting& setting, std::vector<RunResult> runs);

  const Setting& setting() const { return setting_; }
  const std::vector<RunResult>& runs() const { return runs_; }
  /// In rising order.
  const std::vector<uint64_t>& seeds() const { return seeds_; }
  bool has(const std::string& arm, const std::string& value) const;
  /// Throws Error naming arm, seed or value that is not there.
  double value(const std::string& arm, uint64_t seed, const std::string& value) const;
  const Curve& curve(const std::string& arm, uint64_t seed, const std::string& curve) const;
  /// One number a seed that the arm ran with.
  std::vector<double> values(const std::string& arm, const std::string& value) const;
  double mean(const std::string& arm, const std::string& value) const;

  /// The curve of each arm named, the mean over its seeds (curves of an arm are of one length).
  std::vector<Series> series(const std::vector<std::string>& arms, const std::string& curve) const;

 private:
  const RunResult& run(const std::string& arm, uint64_t seed) const;

  Setting setting_;
  std::vector<RunResult> runs_;
  std::vector<uint64_t> seeds_;
};

nlohmann::ordered_json to_json(const RunResult& run);
/// Throws FormatError naming `where`.
RunResult run_from_json(const nlohmann::json& json, const std::string& where);

}  // namespace cadre::recipes
