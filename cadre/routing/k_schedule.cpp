#include "cadre/routing/k_schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "cadre/base/error.h"

namespace cadre {
namespace {

constexpr std::array<std::string_view, 5> kNames = {"constant", "linear", "cosine", "exponential",
                                                    "steps"};
constexpr std::array<int64_t, 5> kStepValues = {1, 2, 4, 8, 16};

}  // namespace

int64_t KSchedule::at(int64_t step, int64_t total_steps) const {
  if (form == Form::kConstant) return first;
  if (total_steps < 1) return last;
  const double f = std::clamp(static_cast<double>(step) / static_cast<double>(total_steps), 0., 1.);
  const auto span = static_cast<double>(last - first);
  double k = 0;
  switch (form) {
    case Form::kConstant:
    case Form::kLinear:
      k = span * f + static_cast<double>(first);
      break;
    case Form::kCosine:
      k = static_cast<double>(last) - span * std::cos(std::numbers::pi * f / 2);
      break;
    case Form::kExponential:
      k = static_cast<double>(last) - span * std::pow(0.99, std::floor(300 * f));
      break;
    case Form::kSteps:
      k = static_cast<double>(kStepValues[std::min<size_t>(4, static_cast<size_t>(5 * f))]);
      break;
  }
  const auto rounded = static_cast<int64_t>(std::nearbyint(k));  // half to even
  return std::clamp(rounded, std::min(first, last), std::max(first, last));
}

KSchedule::Form schedule_named(std::string_view name) {
  const auto* found = std::find(kNames.begin(), kNames.end(), name);
  if (found != kNames.end()) return static_cast<KSchedule::Form>(found - kNames.begin());
  throw UsageError("unknown schedule '{}' (known: {})", name, fmt::join(kNames, ", "));
}

}  // namespace cadre
