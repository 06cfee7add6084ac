#pragma once

/// Text from a language model, token by token.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>

#include "cadre/base/random.h"
#include "cadre/formats/tokenizer.h"
#include "cadre/training/language_model.h"

namespace cadre {

struct SamplingOptions {
  int64_t tokens = 64;       ///< at most so many new ones
  double temperature = 0.8;  ///< 0 = greedy
  int64_t top_k = 0;         ///< 0 = all
  double top_p = 0.95;       ///< in (0, 1]
  uint64_t seed = 1;
};

/// One token from logits [V] of at least one token: keeps the top_k, then the most likely ones
/// whose probabilities sum to top_p, then draws. Equal logits rank by id. Throws Error when a logit
/// is not finite.
TokenId sample_token(std::span<const float> logits, const SamplingOptions& options, Random& random);

/// Continues the prompt; `on_text` gets each piece of whole UTF-8 as it is made. Returns the
/// continuation. Stops at end-of-text or the model's context length. Throws UsageError: empty
/// prompt, prompt longer than the context, options out of range.
std::string generate(LanguageModel& model, const Tokenizer& tokenizer, std::string_view prompt,
                     const SamplingOptions& options,
                     const std::function<void(std::string_view)>& on_text = {});

}  // namespace cadre
