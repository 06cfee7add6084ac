#pragma once

/// Validation loss, domain by domain.

#include <cstdint>
#include <string>
#include <vector>

#include "cadre/data/token_batches.h"
#include "cadre/training/language_model.h"

namespace cadre {

struct DomainLoss {
  std::string domain;
  double loss = 0;  ///< nats per token
  int64_t tokens = 0;
};

struct Evaluation {
  std::vector<DomainLoss> domains;
  double mean = 0;  ///< mean over domains
};

/// Validation loss of each domain: at most `max_sequences` sequences of `length` tokens each.
/// Throws UsageError naming a domain without validation tokens.
Evaluation evaluate(LanguageModel& model, const std::vector<DomainTokens>& domains, int64_t batch,
                    int64_t length, int64_t max_sequences);

/// The same on ready batches, one list a domain.
Evaluation evaluate(LanguageModel& model, const std::vector<std::string>& names,
                    const std::vector<std::vector<TokenBatch>>& batches);

}  // namespace cadre
