#pragma once

/// From logits to the next token.

#include <cstdint>
#include <span>
#include <vector>

#include "cadre/formats/tokenizer.h"

namespace cadre::engine {

/// Applied in this order. Temperature comes first of the probability filters, as the learn wing's
/// `cadre generate` has it.
struct SamplerOptions {
  double repeat_penalty = 1.0;  ///< logits of recent tokens are divided by it (multiplied when
                                ///< negative; CTRL, Keskar et al., 2019); above 0, 1 = off
  int64_t repeat_window = 64;   ///< how many tokens are recent; 0 = all
  double temperature = 0.8;     ///< 0 = greedy: the likeliest token, filters do not matter
  int64_t top_k = 0;            ///< keep the k likeliest; 0 = all
  double top_p = 0.95;          ///< of those keep the likeliest whose share sums to p; in (0, 1]
  double min_p = 0.0;           ///< drop those below this share of the likeliest; in [0, 1]
  uint64_t seed = 1;
};

/// Immutable: a draw depends on the options, the logits and the tokens before, on nothing else, so
/// that batching, other requests and restarts change nothing.
class Sampler {
 public:
  /// Throws UsageError that names the option out of range.
  explicit Sampler(const SamplerOptions& options);

  /// The token that follows `context`. Equal logits rank by id, the lower first. Throws Error when
  /// a logit is not finite, UsageError when there is none.
  TokenId draw(std::span<const float> logits, std::span<const TokenId> context) const;

  const SamplerOptions& options() const { return options_; }

 private:
  std::vector<float> penalised(std::span<const float> logits,
                               std::span<const TokenId> context) const;

  SamplerOptions options_;
};

}  // namespace cadre::engine
