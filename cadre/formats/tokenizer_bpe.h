#pragma once

/// The merging of byte-pair encoding: from the bytes of one word to token ids.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cadre/formats/tokenizer.h"

namespace cadre::bpe {

/// Two adjacent tokens become one. The place of a merge in its list is its rank: the lowest goes
/// first.
struct Merge {
  TokenId left, right, result;
};

/// Immutable and safe to share between threads; each thread keeps a cache of 16,384 words (1 MB).
class Merger {
 public:
  /// `bytes`: the token of each byte, -1 when the vocabulary has none. `whole_words`: words, as
  /// bytes, that become their token without merging (Llama 3's ignore_merges); usually empty.
  /// Throws FormatError when a pair is merged twice.
  Merger(const std::array<TokenId, 256>& bytes, const std::vector<Merge>& merges,
         std::unordered_map<std::string, TokenId> whole_words = {});

  /// Appends the word's tokens. n^2 / 2 steps up to 64 bytes, n log n beyond.
  /// Throws UsageError for a byte that has no token.
  void encode(std::string_view word, std::vector<TokenId>& out) const;

 private:
  static constexpr uint32_t kNoRank = UINT32_MAX;
  struct Rule {
    uint32_t rank = kNoRank;
    TokenId result = -1;
  };
  struct Slot {
    uint64_t pair = UINT64_MAX;
    Rule rule;
  };
  struct Node;

  Rule rule_for(TokenId left, TokenId right) const;
  Rule rule_for_bytes(char left, char right) const;
  void insert(const Merge& merge, uint32_t rank);
  void merge_word(std::string_view word, std::vector<TokenId>& out) const;
  void merge_short(std::string_view word, std::vector<TokenId>& out) const;
  void merge_long(std::string_view word, std::vector<TokenId>& out) const;

  std::array<TokenId, 256> bytes_;
  std::vector<Rule> byte_rules_;  ///< 65536: the first pairs of every word, without hashing
  std::vector<Slot> slots_;       ///< open addressing, a power of two, at most half full
  int shift_ = 0;
  std::unordered_map<std::string, TokenId> whole_words_;
  uint32_t serial_;  ///< tells this merger's words in the threads' caches
};

}  // namespace cadre::bpe
