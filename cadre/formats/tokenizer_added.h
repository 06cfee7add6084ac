#pragma once

/// Finding added tokens ("<|endoftext|>") in a text.

#include <array>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cadre/formats/tokenizer_parts.h"

namespace cadre::bpe {

/// Immutable and safe to share between threads.
class AddedTokenFinder {
 public:
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);

  struct Match {
    size_t begin, end;  ///< with the white space that the token takes along
    TokenId id;
  };
  /// The leftmost match in text[from, size), the longest of those at one place; false when there is
  /// none.
  bool find(std::string_view text, size_t from, Match* match) const;

 private:
  const AddedToken* longest_at(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string_view, size_t> by_content_;
  std::array<std::vector<size_t>, 256>
      lengths_;  ///< of the tokens with this first byte, longest first
};

}  // namespace cadre::bpe
