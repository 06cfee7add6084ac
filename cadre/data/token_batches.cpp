#include "cadre/data/token_batches.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/data/permutation.h"

namespace cadre {
namespace {

constexpr int64_t kWeightedCycle = 1024;

/// Sequences of length + 1 tokens that overlap by one.
int64_t sequences_in(const TokenFile& tokens, int64_t length) {
  return (tokens.size() - 1) / length;
}

TokenBatch empty_batch(int64_t batch, int64_t length) {
  return {torch::empty({batch, length}, torch::kInt64),
          torch::empty({batch, length}, torch::kInt64), torch::empty({batch}, torch::kInt64)};
}

void copy_row(const TokenFile& tokens, int64_t begin, int64_t row, TokenBatch& batch) {
  const int64_t length = batch.inputs.size(1);
  tokens.copy(begin, length, batch.inputs.data_ptr<int64_t>() + row * length);
  tokens.copy(begin + 1, length, batch.targets.data_ptr<int64_t>() + row * length);
}

void check_domain(const DomainTokens& domain, const DomainTokens& first, int64_t length) {
  if (!domain.train) throw UsageError("domain '{}' has no training tokens", domain.name);
  if (sequences_in(*domain.train, length) < 1) {
    throw UsageError(
        "domain '{}' has {} training tokens, one sequence needs {}; give more text or a smaller "
        "length",
        domain.name, domain.train->size(), length + 1);
  }
  if (domain.train->tokenizer_hash() != first.train->tokenizer_hash()) {
    throw UsageError("domains '{}' and '{}' were encoded with different tokenizers", first.name,
                     domain.name);
  }
}

void check_weights(const std::vector<double>& weights, size_t domains) {
  if (weights.size() != domains) {
    throw UsageError("{} weights for {} domains", weights.size(), domains);
  }
  for (const double weight : weights) {
    if (!std::isfinite(weight) || weight <= 0) {
      throw UsageError("the weight of a domain is {}, must be above 0", weight);
    }
  }
}

/// Turns of each domain in a cycle: one each when equal, else shares of kWeightedCycle, at least
/// one.
std::vector<int64_t> turns_from(const std::vector<double>& weights) {
  const bool equal = std::all_of(weights.begin(), weights.end(),
                                 [&](double weight) { return weight == weights.front(); });
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<int64_t> turns;
  for (const double weight : weights) {
    turns.push_back(equal ? 1 : std::max<int64_t>(1, std::llround(weight / sum * kWeightedCycle)));
  }
  return turns;
}

}  // namespace

TokenBatches::TokenBatches(std::vector<DomainTokens> domains, int64_t batch, int64_t length,
                           uint64_t seed, std::vector<double> weights)
    : domains_(std::move(domains)), batch_(batch), length_(length), seed_(seed) {
  if (domains_.empty()) throw UsageError("there is no domain to train on");
  if (batch < 1) throw UsageError("batch is {}, must be at least 1", batch);
  if (length < 1) throw UsageError("length is {}, must be at least 1", length);
  for (const DomainTokens& domain : domains_) check_domain(domain, domains_.front(), length);
  if (weights.empty()) weights.assign(domains_.size(), 1.0);
  check_weights(weights, domains_.size());

  turns_ = turns_from(weights);
  const int64_t total = std::accumulate(turns_.begin(), turns_.end(), int64_t{0});
  // Smooth weighted round-robin: every slot each domain earns its turns, the richest pays for it.
  std::vector<int64_t> credit(domains_.size()), taken(domains_.size());
  for (int64_t slot = 0; slot < total; ++slot) {
    for (size_t d = 0; d < credit.size(); ++d) credit[d] += turns_[d];
    const auto richest = std::max_element(credit.begin(), credit.end()) - credit.begin();
    credit[richest] -= total;
    cycle_.push_back({richest, taken[richest]++});
  }
}

std::vector<double> TokenBatches::shares() const {
  std::vector<double> shares;
  for (const int64_t turns : turns_) {
    shares.push_back(static_cast<double>(turns) / static_cast<double>(cycle_.size()));
  }
  return shares;
}

TokenBatch TokenBatches::at(int64_t index) const {
  TokenBatch batch = empty_batch(batch_, length_);
  for (int64_t row = 0; row < batch_; ++row) copy_sequence(index * batch_ + row, row, batch);
  return batch;
}

void TokenBatches::copy_sequence(int64_t number, int64_t row, TokenBatch& batch) const {
  const int64_t cycle_length = static_cast<int64_t>(cycle_.size());
  const Slot& slot = cycle_[number % cycle_length];
  const int64_t drawn = number / cycle_length * turns_[slot.domain] + slot.turn;
  const TokenFile& tokens = *domains_[slot.domain].train;
  const int64_t sequences = sequences_in(tokens, length_);
  const Permutation order(
      sequences, seed_,
      {static_cast<uint64_t>(slot.domain), static_cast<uint64_t>(drawn / sequences)});
  copy_row(tokens, order(drawn % sequences) * length_, row, batch);
  batch.domains.data_ptr<int64_t>()[row] = slot.domain;
}

std::vector<TokenBatch> validation_batches(const DomainTokens& domain, int64_t domain_index,
                                           int64_t batch, int64_t length, int64_t max_sequences) {
  const int64_t size = domain.validation ? domain.validation->size() : 0;
  if (size < 2) {
    throw UsageError("domain '{}' has {} validation tokens, needs at least 2; give more text",
                     domain.name, size);
  }
  if (batch < 1 || length < 1 || max_sequences < 1) {
    throw UsageError("validation of {} sequences of {} in batches of {}: all must be at least 1",
                     max_sequences, length, batch);
  }
  length = std::min(length, size - 1);
  const int64_t available = sequences_in(*domain.validation, length);
  const int64_t used = std::min(available, max_sequences);
  std::vector<TokenBatch> batches;
  for (int64_t first = 0; first < used; first += batch) {
    const int64_t rows = std::min(batch, used - first);
    TokenBatch next = empty_batch(rows, length);
    for (int64_t row = 0; row < rows; ++row) {
      copy_row(*domain.validation, (first + row) * available / used * length, row, next);
    }
    next.domains.fill_(domain_index);
    batches.push_back(std::move(next));
  }
  return batches;
}

}  // namespace cadre
