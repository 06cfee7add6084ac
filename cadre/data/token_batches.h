#pragma once

/// Batches of token sequences from several domains. The order is a pure function of the seed: a resumed run sees the same batches.

#include <torch/torch.h>

#include <memory>
#include <string>
#include <vector>

#include "cadre/formats/token_file.h"

namespace cadre {

struct DomainTokens {
  std::string name;
  std::shared_ptr<const TokenFile> train, validation;
};

struct TokenBatch {
  torch::Tensor inputs;   ///< [B, T] int64
  torch::Tensor targets;  ///< [B, T] int64: inputs shifted by one
  torch::Tensor domains;  ///< [B] int64: index of each sequence's domain
};

/// Endless shuffled training batches: every domain is cut into sequences of `length` + 1 tokens (overlapping by one);
/// each pass over a domain draws a new order; domains are mixed in equal shares (or by `weights`).
class TokenBatches {
 public:
  /// Throws UsageError naming a domain that is smaller than one sequence.
  TokenBatches(std::vector<DomainTokens> domains, int64_t batch, int64_t length, uint64_t seed,
               std::vector<double> weights = {});
  /// Batch number `index` (0, 1, ...): random access, no state.
  TokenBatch at(int64_t index) const;
  const std::vector<DomainTokens>& domains() const { return domains_; }

 private:
  std::vector<DomainTokens> domains_;
  int64_t batch_, length_;
  uint64_t seed_;
  std::vector<double> weights_;
};

/// The validation tokens of one domain as batches in order (the last may be smaller); at most `max_sequences`.
std::vector<TokenBatch> validation_batches(const DomainTokens& domain, int64_t domain_index, int64_t batch,
                                           int64_t length, int64_t max_sequences);

}  // namespace cadre
