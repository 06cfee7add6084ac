#include "cadre/formats/tokenizer_added.h"

#include <utf8proc.h>

#include <algorithm>
#include <functional>

#include "cadre/base/text.h"
#include "cadre/formats/tokenizer_text.h"
#include "cadre/formats/utf8.h"

namespace cadre::bpe {
namespace {

bool is_word(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_PC;
}

bool is_space(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return (c >= 9 && c <= 13) || c == 0x85 ||
         (category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP);
}

bool stands_alone(std::string_view before, std::string_view after) {
  return (before.empty() || !is_word(last_code_point(before))) &&
         (after.empty() || !is_word(first_code_point(after).value));
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string& content = tokens_[i].content;
    by_content_.emplace(content, i);
    lengths_[static_cast<uint8_t>(content[0])].push_back(content.size());
  }
  for (auto& lengths : lengths_) {
    std::sort(lengths.begin(), lengths.end(), std::greater{});
    lengths.erase(std::unique(lengths.begin(), lengths.end()), lengths.end());
  }
}

const AddedToken* AddedTokenFinder::longest_at(std::string_view text, size_t at) const {
  for (const size_t length : lengths_[static_cast<uint8_t>(text[at])]) {
    if (at + length > text.size()) continue;
    const auto found = by_content_.find(text.substr(at, length));
    if (found == by_content_.end()) continue;
    const AddedToken& token = tokens_[found->second];
    if (!token.single_word || stands_alone(text.substr(0, at), text.substr(at + length)))
      return &token;
  }
  return nullptr;
}

bool AddedTokenFinder::find(std::string_view text, size_t from, Match* match) const {
  for (size_t at = from; at < text.size(); ++at) {
    if (lengths_[static_cast<uint8_t>(text[at])].empty()) continue;
    const AddedToken* token = longest_at(text, at);
    if (token == nullptr) continue;
    *match = {at, at + token->content.size(), token->id};
    while (token->strips_left && match->begin > from) {
      const char32_t c = last_code_point(text.substr(from, match->begin - from));
      if (!is_space(c)) break;
      match->begin -= utf8_of(c).size();
    }
    while (token->strips_right && match->end < text.size()) {
      const CodePoint c = first_code_point(text.substr(match->end));
      if (!is_space(c.value)) break;
      match->end += c.bytes;
    }
    return true;
  }
  return false;
}

}  // namespace cadre::bpe
