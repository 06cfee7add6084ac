#pragma once

/// Kinds of tokens, for reports on who gets how many experts.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/formats/tokenizer.h"

namespace cadre {

/// Each token id's class. Empty = no classes.
struct TokenClasses {
  std::vector<std::string> names;
  std::vector<int32_t> of_token;  ///< [V], index into names
};

/// By a token's first character, after a space: letters that begin a word or go on with one,
/// digits, punctuation, white space, and the rest (special tokens, bytes within a character). A
/// token that begins a word is one that has a space before its letters.
TokenClasses classify_tokens(const Tokenizer& tokenizer, int64_t vocabulary);

/// The class of a token's text, as an index into the names.
int32_t class_of_text(std::string_view text);

}  // namespace cadre
