#pragma once

/// Statistics of a model over texts, collected by the engine in one pass and kept in one
/// safetensors file that merge_experts, prune_experts, factorize and others read (names in
/// layer_stats.h). Expert weights may stream from disk as in any run; beside the model it holds E^2
/// numbers a layer with experts and (texts + segments) H a dense one.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "cadre/engine/session.h"

namespace cadre::reshape {

struct CalibrateOptions {
  int64_t window = 512;         ///< tokens read together
  int64_t tokens = 65536;       ///< at most so many of each text
  int64_t segments = 64;        ///< parts of the texts told apart for kFeatures, at most
  int64_t output_tokens = 256;  ///< tokens whose experts all run for kExpertOutput; 0 = none
  /// Called with the share done in (0, 1]; may be empty.
  std::function<void(double)> progress = {};
};

struct CalibrationReport {
  int64_t tokens = 0;
  int64_t layers_with_experts = 0;
};

/// Reads `texts` (UTF-8, one a domain) with the model at `path` and writes `out`. Throws UsageError
/// for no text or an empty one; what Model::open throws.
CalibrationReport calibrate(const std::filesystem::path& path,
                            const std::vector<std::string>& texts, const std::filesystem::path& out,
                            const engine::ModelOptions& model = {},
                            const CalibrateOptions& options = {});

}  // namespace cadre::reshape
