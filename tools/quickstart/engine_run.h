#pragma once

/// The trained model through the run wing, once with all experts in memory and once with half of
/// their bytes: the text must be the same.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/training/generation.h"

namespace cadre {

/// What the engine wrote for each prompt.
struct EngineTexts {
  std::vector<std::string> texts;
  int64_t expert_bytes = 0;  ///< that it had for experts
  double hit_rate = 1;       ///< of experts found in memory
  int64_t bytes_read = 0;    ///< of experts, from disk
};

struct EngineReport {
  EngineTexts full, half;
  std::string refused;  ///< why the engine does not run this model; empty = it does
  bool same() const { return full.texts == half.texts; }
};

/// Continues every prompt, pieces going to `on_text` (prompt's index, text) as they are made, until
/// all are done or the program is interrupted. Throws FormatError when the engine does not run such
/// a model.
EngineTexts write_with_all_experts(const std::filesystem::path& model,
                                   const std::vector<std::string>& prompts,
                                   const SamplingOptions& options,
                                   const std::function<void(size_t, std::string_view)>& on_text);

/// The same with half of the experts' bytes (no fewer than the engine needs).
EngineTexts write_with_half_of_experts(const std::filesystem::path& model,
                                       const std::vector<std::string>& prompts,
                                       const SamplingOptions& options);

}  // namespace cadre
