#pragma once

/// Finished sequences kept for requests that begin alike: a radix tree over token ids (Zheng et
/// al., "SGLang: Efficient Execution of Structured Language Model Programs", 2024), the least
/// recently used one forgotten first.

#include <cstdint>
#include <memory>
#include <span>

#include "cadre/engine/sequence_model.h"

namespace cadre::engine {

/// Not for several threads at a time.
class PrefixCache {
 public:
  /// Keeps at most so many tokens; what sequences share counts once. 0 = keeps nothing.
  explicit PrefixCache(int64_t capacity);
  ~PrefixCache();

  /// A new sequence that holds the longest known beginning of `tokens`, but not all of them (the
  /// last one must be computed to get logits); null when nothing is known.
  std::unique_ptr<Sequence> find(std::span<const TokenId> tokens);

  /// Keeps a sequence. One that another begins with is not kept twice.
  void insert(std::unique_ptr<Sequence> sequence);

  /// Forgets sequences until at most `tokens` are kept.
  void shrink(int64_t tokens);

  int64_t tokens() const { return tokens_; }

 private:
  struct Node;
  struct Place;

  Place walk(std::span<const TokenId> tokens) const;
  void remove(Node* leaf);

  int64_t capacity_;
  int64_t tokens_ = 0;  ///< sum of the edges
  int64_t clock_ = 0;
  std::unique_ptr<Node> root_;
};

}  // namespace cadre::engine
