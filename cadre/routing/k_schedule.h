#pragma once

/// How many experts a token has as training goes on (Chen et al., "Sparse MoE as the New Dropout",
/// 2023, and its released code). A pure function of the step, so that a resumed run goes on.

#include <cstdint>
#include <string_view>

namespace cadre {

struct KSchedule {
  /// With t of T steps done, f = t / T, then rounded half to even and kept within [first, last]:
  ///   kLinear       (last - first) f + first
  ///   kCosine       (first - last) cos(pi f / 2) + last
  ///   kExponential  (first - last) 0.99^floor(300 f) + last
  ///   kSteps        entry floor(5 f) of 1, 2, 4, 8, 16
  enum class Form { kConstant, kLinear, kCosine, kExponential, kSteps } form = Form::kLinear;
  int64_t first = 1;  ///< k of the first step, of all steps when constant
  int64_t last = 1;

  /// k of `step` (0, 1, ...) of `total_steps`; `last` when there is no end.
  int64_t at(int64_t step, int64_t total_steps) const;
};

/// "constant", "linear", "cosine", "exponential", "steps". Throws UsageError for another name.
KSchedule::Form schedule_named(std::string_view name);

}  // namespace cadre
