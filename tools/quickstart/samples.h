#pragma once

/// One prompt from each domain's held-out text, and what the model makes of it.

#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "cadre/data/token_batches.h"
#include "cadre/training/generation.h"
#include "tools/quickstart/engine_run.h"

namespace cadre {

struct Sample {
  std::string domain, prompt, text;
};

/// The beginning of a line of the domain's held-out text, about fifty bytes, cut after a word.
std::string prompt_from(const DomainTokens& domain, const Tokenizer& tokenizer);

struct Samples {
  std::vector<Sample> samples;
  EngineReport engine;
};

/// Generates for every domain, through the engine twice (or through the model, when the engine does
/// not run such a one); shows the text on `stream` as it is made (null: nowhere). Stops early when
/// interrupted.
Samples make_samples(const std::filesystem::path& folder, LanguageModel& model,
                     const Tokenizer& tokenizer, const std::vector<DomainTokens>& domains,
                     const SamplingOptions& options, std::FILE* stream);

}  // namespace cadre
