#pragma once

/// One prompt from each domain's held-out text, and what the model makes of it.

#include <string>
#include <vector>

#include "cadre/data/token_batches.h"
#include "cadre/training/generation.h"

namespace cadre {

struct Sample {
  std::string domain, prompt, text;
};

/// The beginning of a line of the domain's held-out text, about fifty bytes, cut after a word.
std::string prompt_from(const DomainTokens& domain, const Tokenizer& tokenizer);

/// Generates for every domain; shows the text on `stream` as it is made (null: nowhere). Stops
/// early when interrupted.
std::vector<Sample> make_samples(LanguageModel& model, const Tokenizer& tokenizer,
                                 const std::vector<DomainTokens>& domains,
                                 const SamplingOptions& options, std::FILE* stream);

}  // namespace cadre
