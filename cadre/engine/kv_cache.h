#pragma once

/// Keys and values of sequences in pages of 64 tokens, BF16: [layer][page][head], keys transposed
/// within their page (attention_kernel.h). Pages are shared between sequences that begin alike.

#include <cstdint>
#include <memory>
#include <vector>

#include "cadre/engine/attention_kernel.h"
#include "cadre/engine/model_spec.h"

namespace cadre::engine {

/// One page of one layer, all heads.
class KvPage {
 public:
  explicit KvPage(const ModelSpec& spec)
      : numbers_(new uint16_t[static_cast<size_t>(numbers_of(spec))]) {}
  static int64_t numbers_of(const ModelSpec& spec) {
    return kPageTokens * spec.cached_heads() *
           (spec.cached_key_width() + spec.cached_value_width());
  }
  uint16_t* keys(const ModelSpec& spec, int64_t head) {
    return numbers_.get() + head * kPageTokens * spec.cached_key_width();
  }
  uint16_t* values(const ModelSpec& spec, int64_t head) {
    return keys(spec, spec.cached_heads()) + head * kPageTokens * spec.cached_value_width();
  }

 private:
  std::unique_ptr<uint16_t[]> numbers_;  // not zeroed: a page is written before it is read
};

/// The cache of one sequence.
class KvCache {
 public:
  explicit KvCache(const ModelSpec& spec);

  /// Bytes that one token needs in all layers.
  static int64_t bytes_per_token(const ModelSpec& spec);

  /// Makes room for positions [first, length), which no other sequence sees. Throws std::bad_alloc.
  void reserve(int64_t first, int64_t length);
  /// Forgets pages wholly at or beyond `length`.
  void truncate(int64_t length);
  /// In sliding layers, frees pages wholly before the window of the token at `position`.
  void forget_before_window(int64_t position);
  /// Whether everything the token at `length` may look at is still there.
  bool covers(int64_t length) const;
  /// A cache that shares the full pages of the first `length` tokens and owns a copy of the rest.
  KvCache fork(int64_t length) const;

  /// Null when freed behind a window.
  KvPage* page(int64_t layer, int64_t index) const {
    return pages_[static_cast<size_t>(layer)][static_cast<size_t>(index)].get();
  }

 private:
  std::shared_ptr<KvPage> copy_of(const std::shared_ptr<KvPage>& page) const;

  const ModelSpec* spec_;
  std::vector<std::vector<std::shared_ptr<KvPage>>> pages_;  ///< [layer][page]
};

}  // namespace cadre::engine
