#pragma once

/// Keys and values of sequences in pages of 64 tokens, BF16 or 8-bit: [layer][page][head], keys
/// transposed within their page (attention_kernel.h). Pages are shared between sequences that begin
/// alike.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cadre/engine/attention_kernel.h"
#include "cadre/engine/kv_type.h"
#include "cadre/engine/model_spec.h"

namespace cadre::engine {

/// One page of one layer, all heads.
class KvPage {
 public:
  KvPage(const ModelSpec& spec, KvType type)
      : spec_(&spec),
        type_(type),
        bytes_(new std::byte[static_cast<size_t>(bytes_of(spec, type))]) {}
  KvPage(const KvPage& other);
  KvPage& operator=(const KvPage&) = delete;
  static int64_t bytes_of(const ModelSpec& spec, KvType type);

  /// Keeps what the token in `slot` (0 .. 63) has for a head: key [key width], value [value width].
  void store(int64_t head, int64_t slot, const float* key, const float* value);
  /// Adds the page to the states of rows of that head, queries [key width]. The keys of `next` (or
  /// null) are fetched meanwhile.
  void attend(int64_t head, AttentionRow* rows, int64_t count, const KvPage* next) const;

 private:
  // 8-bit pages begin with the scales of all keys and all values [heads][64]; then come the keys of
  // all heads, then the values.
  float* key_scales(int64_t head) const;
  float* value_scales(int64_t head) const;
  std::byte* keys(int64_t head) const;
  std::byte* values(int64_t head) const;

  const ModelSpec* spec_;
  KvType type_;
  std::unique_ptr<std::byte[]> bytes_;  // not zeroed: a page is written before it is read
};

/// The cache of one sequence.
class KvCache {
 public:
  explicit KvCache(const ModelSpec& spec, KvType type = KvType::kBf16);

  /// Bytes that one token needs in all layers.
  static int64_t bytes_per_token(const ModelSpec& spec, KvType type);

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
  const ModelSpec* spec_;
  KvType type_;
  std::vector<std::vector<std::shared_ptr<KvPage>>> pages_;  ///< [layer][page]
};

}  // namespace cadre::engine
