#pragma once

/// cadre run --ensemble: every prompt is routed to one of several models; those asked for last stay
/// in memory.

#include <string>
#include <vector>

#include "tools/common/engine_options.h"
#include "tools/run/generator.h"

namespace cadre {

struct EnsembleOptions {
  std::string file;     ///< TOML; empty = none
  std::string prompts;  ///< file of prompts, one a line; empty = none
};

struct EnsembleCommand {
  const EngineOptions& engine;
  const GeneratorOptions& generator;
  const EnsembleOptions& ensemble;
  bool json = false;
};

/// Answers the one prompt, or those of ensemble.prompts, as JSON lines in the order in which they
/// are answered. Returns the exit code.
int run_ensemble(const EnsembleCommand& command, std::vector<std::string> prompts, int threads);

}  // namespace cadre
