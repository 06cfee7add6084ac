#include "cadre/training/token_classes.h"

#include <cctype>
#include <span>

namespace cadre {
namespace {

enum Class : int32_t { kWordStart, kWordPart, kDigit, kPunctuation, kSpace, kOther };
const std::vector<std::string> kNames = {"word start",  "word part", "digit",
                                         "punctuation", "space",     "other"};

}  // namespace

int32_t class_of_text(std::string_view text) {
  if (text.empty()) return kOther;
  const bool spaced = std::isspace(static_cast<unsigned char>(text.front())) != 0;
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) {
    text.remove_prefix(1);
  }
  if (text.empty()) return kSpace;
  const auto first = static_cast<unsigned char>(text.front());
  // A byte from 0xC2 on begins a character beyond ASCII: nearly always a letter in text.
  if (std::isalpha(first) || first >= 0xC2) return spaced ? kWordStart : kWordPart;
  if (std::isdigit(first)) return kDigit;
  return std::ispunct(first) ? kPunctuation : kOther;
}

TokenClasses classify_tokens(const Tokenizer& tokenizer, int64_t vocabulary) {
  TokenClasses classes{.names = kNames};
  classes.of_token.assign(static_cast<size_t>(vocabulary), kOther);
  for (TokenId id = 0; id < tokenizer.vocabulary_size() && id < vocabulary; ++id) {
    if (tokenizer.is_special(id)) continue;
    const std::string text = tokenizer.decode(std::span(&id, 1));
    classes.of_token[static_cast<size_t>(id)] = class_of_text(text);
  }
  return classes;
}

}  // namespace cadre
