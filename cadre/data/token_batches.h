#pragma once

/// Batches of token sequences from several domains. The order is a pure function of the seed: a
/// resumed run sees the same batches.

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

/// Endless shuffled training batches: every domain is cut into sequences of `length` + 1 tokens
/// (overlapping by one); each pass over a domain draws a new order. Domains take turns, so that
/// each batch holds equal shares of them as far as its size allows, or shares by `weights` (to 1 /
/// 1024).
class TokenBatches {
 public:
  /// Throws UsageError: no domain, a domain that is smaller than one sequence (named), domains of
  /// different tokenizers, a batch or length below 1, weights that are not one positive number a
  /// domain.
  TokenBatches(std::vector<DomainTokens> domains, int64_t batch, int64_t length, uint64_t seed,
               std::vector<double> weights = {});
  /// Batch number `index` (0, 1, ...): random access, no state.
  TokenBatch at(int64_t index) const;

  const std::vector<DomainTokens>& domains() const { return domains_; }
  int64_t batch() const { return batch_; }
  int64_t length() const { return length_; }
  uint64_t seed() const { return seed_; }
  /// Each domain's share of the sequences; sums to 1.
  std::vector<double> shares() const;

 private:
  /// Whose turn it is: a slot of the cycle that repeats over all sequences ever drawn.
  struct Slot {
    int64_t domain;
    int64_t turn;  ///< the domain's turns before it in the cycle
  };
  void copy_sequence(int64_t number, int64_t row, TokenBatch& batch) const;

  std::vector<DomainTokens> domains_;
  int64_t batch_, length_;
  uint64_t seed_;
  std::vector<Slot> cycle_;
  std::vector<int64_t> turns_;  ///< of each domain in a cycle
};

/// The validation tokens of one domain as batches (the last may be smaller): at most
/// `max_sequences` sequences of `length` + 1 tokens, spread evenly over the file. A domain with
/// fewer tokens gives one shorter sequence. Throws UsageError naming a domain with less than two.
std::vector<TokenBatch> validation_batches(const DomainTokens& domain, int64_t domain_index,
                                           int64_t batch, int64_t length, int64_t max_sequences);

}  // namespace cadre
