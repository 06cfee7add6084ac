#pragma once

/// The tokens that a model wants around its texts, and the form of its conversations.

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/formats/tokenizer.h"

namespace cadre::engine {

struct TextFrame {
  TokenId begin = -1;                        ///< stands before every text; -1 = none
  std::vector<TokenId> ends;                 ///< each ends a text or a turn; ascending
  std::string end_of_text;                   ///< as the vocabulary writes it; may be empty
  std::optional<std::string> chat_template;  ///< Jinja, for recognise_chat_format()

  /// The text's tokens behind the begin token.
  std::vector<TokenId> encode(
      const Tokenizer& tokenizer, std::string_view text,
      Tokenizer::SpecialTokens special = Tokenizer::SpecialTokens::kAsText) const;
};

/// From a GGUF file's keys; a checkpoint folder has no begin token. Throws IoError, FormatError.
TextFrame read_text_frame(const std::filesystem::path& model, const Tokenizer& tokenizer);

/// Tokens that end a text or a turn of a chat in published vocabularies, as far as this one has
/// them.
std::vector<TokenId> end_tokens(const Tokenizer& tokenizer);

}  // namespace cadre::engine
