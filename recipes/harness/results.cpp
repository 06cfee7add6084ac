#include "recipes/harness/results.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "cadre/base/error.h"

namespace cadre::recipes {
namespace {

using Json = nlohmann::ordered_json;

/// JSON has no NaN: null stands for it.
double number(const nlohmann::json& json) {
  return json.is_null() ? std::numeric_limits<double>::quiet_NaN() : json.get<double>();
}

std::vector<double> numbers(const nlohmann::json& json) {
  std::vector<double> list;
  for (const auto& element : json) list.push_back(number(element));
  return list;
}

}  // namespace

Spread spread_of(const std::vector<double>& values) {
  if (values.empty()) throw Error("no values to take a mean of");
  const auto n = static_cast<double>(values.size());
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, values.size() > 1 ? std::sqrt(squares / (n - 1)) : 0};
}

Results::Results(const Setting& setting, std::vector<RunResult> runs)
    : setting_(setting), runs_(std::move(runs)) {
  std::set<uint64_t> seeds;
  for (const RunResult& run : runs_) seeds.insert(run.seed);
  seeds_.assign(seeds.begin(), seeds.end());
}

const RunResult& Results::run(const std::string& arm, uint64_t seed) const {
  const auto found = std::find_if(runs_.begin(), runs_.end(), [&](const RunResult& run) {
    return run.arm == arm && run.seed == seed;
  });
  if (found == runs_.end()) throw Error("recipe: arm '{}' did not run with seed {}", arm, seed);
  return *found;
}

bool Results::has(const std::string& arm, const std::string& value) const {
  return std::any_of(runs_.begin(), runs_.end(), [&](const RunResult& run) {
    return run.arm == arm && run.measured.values.contains(value);
  });
}

double Results::value(const std::string& arm, uint64_t seed, const std::string& value) const {
  const auto& values = run(arm, seed).measured.values;
  const auto found = values.find(value);
  if (found == values.end()) throw Error("recipe: arm '{}' measured no '{}'", arm, value);
  return found->second;
}

const Curve& Results::curve(const std::string& arm, uint64_t seed, const std::string& curve) const {
  const auto& curves = run(arm, seed).measured.curves;
  const auto found = curves.find(curve);
  if (found == curves.end()) throw Error("recipe: arm '{}' has no curve '{}'", arm, curve);
  return found->second;
}

std::vector<double> Results::values(const std::string& arm, const std::string& name) const {
  std::vector<double> list;
  for (const RunResult& run : runs_) {
    if (run.arm == arm) list.push_back(value(arm, run.seed, name));
  }
  return list;
}

double Results::mean(const std::string& arm, const std::string& name) const {
  return spread_of(values(arm, name)).mean;
}

std::vector<Series> Results::series(const std::vector<std::string>& arms,
                                    const std::string& name) const {
  std::vector<Series> list;
  for (const std::string& arm : arms) {
    Series series{.name = arm, .x = {}, .y = {}};
    double count = 0;
    for (const RunResult& run : runs_) {
      if (run.arm != arm) continue;
      const Curve& one = curve(arm, run.seed, name);
      if (count++ == 0) {
        series.x = one.x;
        series.y.assign(one.y.size(), 0);
      }
      if (one.y.size() != series.y.size()) {
        throw Error("recipe: curves '{}' of arm '{}' differ in length", name, arm);
      }
      for (size_t i = 0; i < one.y.size(); ++i) series.y[i] += one.y[i];
    }
    for (double& y : series.y) y /= count;
    list.push_back(std::move(series));
  }
  return list;
}

Json to_json(const RunResult& run) {
  Json values = Json::object(), curves = Json::object();
  for (const auto& [name, value] : run.measured.values) values[name] = value;
  for (const auto& [name, curve] : run.measured.curves) {
    curves[name] = {{"x", curve.x}, {"y", curve.y}};
  }
  return {{"arm", run.arm},
          {"seed", run.seed},
          {"seconds", run.seconds},
          {"values", values},
          {"curves", curves}};
}

RunResult run_from_json(const nlohmann::json& json, const std::string& where) {
  try {
    RunResult run{.arm = json.at("arm"), .seed = json.at("seed"), .seconds = json.at("seconds")};
    for (const auto& [name, value] : json.at("values").items()) {
      run.measured.values[name] = number(value);
    }
    for (const auto& [name, curve] : json.at("curves").items()) {
      run.measured.curves[name] = {numbers(curve.at("x")), numbers(curve.at("y"))};
    }
    return run;
  } catch (const nlohmann::json::exception& error) {
    throw FormatError("{}: not the results of a recipe's run ({})", where, error.what());
  }
}

}  // namespace cadre::recipes
