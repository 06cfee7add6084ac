#pragma once

/// How well a model predicts a text: exp of the mean negative log-likelihood of its tokens.

#include <cstdint>
#include <functional>
#include <span>

#include "cadre/engine/sequence_model.h"

namespace cadre::engine {

struct PerplexityOptions {
  int64_t context = 512;  ///< tokens of a window; at least 2
  /// Called with the share done in (0, 1] and the perplexity so far; may be empty.
  std::function<void(double, double)> progress;
};

struct PerplexityResult {
  double mean_loss = 0;  ///< nats a token
  double deviation = 0;  ///< standard error of mean_loss
  int64_t tokens = 0;    ///< that were predicted
  ExpertCounters experts;

  double perplexity() const;
};

/// Cuts the text into windows and predicts each one's second half from what is before it in the
/// window, as llama.cpp's perplexity does; a text shorter than a window is predicted from its
/// second token on, a rest at the end is left out. Throws UsageError for fewer than two tokens.
PerplexityResult measure_perplexity(SequenceModel& model, std::span<const TokenId> tokens,
                                    const PerplexityOptions& options);

/// -log softmax(logits)[target].
double token_loss(std::span<const float> logits, TokenId target);

}  // namespace cadre::engine
