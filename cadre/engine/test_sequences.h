#pragma once

/// For tests: a model whose next logits are a function of the last tokens, that checks what it is
/// fed.

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/engine/sequence_model.h"

namespace cadre::engine {

class TestSequences final : public SequenceModel {
 public:
  explicit TestSequences(int64_t vocabulary) : vocabulary_(vocabulary) {}

  int64_t vocabulary() const override { return vocabulary_; }
  std::unique_ptr<Sequence> new_sequence() override { return std::make_unique<Tokens>(); }
  std::vector<float> forward(std::span<const Slice> slices) override {
    passes.emplace_back();
    for (const Slice& slice : slices) {
      passes.back().push_back(static_cast<int64_t>(slice.tokens.size()));
      if (fails && fails(slice.tokens)) throw IoError("the disk is gone");
    }
    std::vector<float> logits;
    for (const Slice& slice : slices) {
      auto& tokens = static_cast<Tokens&>(*slice.sequence).list;
      for (size_t i = 0; i < slice.tokens.size(); ++i) {
        tokens.push_back(slice.tokens[i]);
        const bool last = i + 1 == slice.tokens.size();
        if (slice.want == Model::Slice::Want::kNone) continue;
        if (slice.want == Model::Slice::Want::kLast && !last) continue;
        const std::vector<float> next = logits_after(tokens);
        logits.insert(logits.end(), next.begin(), next.end());
      }
    }
    counters_.hits += 3;
    counters_.misses += 1;
    return logits;
  }
  ExpertCounters expert_counters() const override { return counters_; }

  /// Pseudo-random numbers keyed by length and the last three tokens.
  std::vector<float> logits_after(const std::vector<TokenId>& tokens) const {
    const auto at = [&](size_t back) {
      return tokens.size() < back ? 0U : static_cast<uint64_t>(tokens[tokens.size() - back]) + 1;
    };
    Random random(7, {tokens.size(), at(1), at(2), at(3)});
    std::vector<float> logits(static_cast<size_t>(vocabulary_));
    for (float& logit : logits) logit = 4 * random.uniform();
    return logits;
  }

  /// Sizes of each pass's slices.
  std::vector<std::vector<int64_t>> passes;
  /// Whether a pass with these tokens in one of its slices fails.
  std::function<bool(std::span<const TokenId>)> fails;

 private:
  struct Tokens final : Sequence {
    const std::vector<TokenId>& tokens() const override { return list; }
    std::unique_ptr<Sequence> fork(int64_t length) const override {
      auto copy = std::make_unique<Tokens>();
      copy->list.assign(list.begin(), list.begin() + length);
      return copy;
    }
    std::vector<TokenId> list;
  };

  int64_t vocabulary_;
  ExpertCounters counters_;
};

}  // namespace cadre::engine
