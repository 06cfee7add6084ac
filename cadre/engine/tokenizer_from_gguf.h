#pragma once

/// A tokenizer as GGUF's keys hold it ("tokenizer.ggml.*"), read and written.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cadre/formats/gguf.h"
#include "cadre/formats/gguf_writer.h"
#include "cadre/formats/tokenizer.h"

namespace cadre::engine {

/// The keys' content. Types: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
struct TokenizerLists {
  std::string model;  ///< "gpt2" (byte-level BPE) or "llama" (SentencePiece)
  std::string pre;    ///< byte-level: how text is cut, e.g. "llama-bpe"
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  std::vector<std::string> merges;  ///< byte-level
  std::vector<float> scores;        ///< SentencePiece
  bool add_space_prefix = true;     ///< SentencePiece
};

/// Throws FormatError that names `where` and the key: missing, of another type, a model or cutting
/// that is not supported, lists of different lengths.
TokenizerLists read_tokenizer_lists(const GgufReader& file, const std::string& where);
/// Throws FormatError.
Tokenizer tokenizer_of(const TokenizerLists& lists, const std::string& where);
Tokenizer tokenizer_from_gguf(const GgufReader& file, const std::string& where);

/// From the text of a tokenizer.json. Throws FormatError: also for a way of cutting text that no
/// GGUF name says.
TokenizerLists tokenizer_lists_of(const std::string& json, const std::string& where);
void add_tokenizer_keys(GgufKeys& keys, const TokenizerLists& lists);

/// Tokens with a meaning of their own, and whether a text begins with one; -1 = none.
struct SpecialTokenIds {
  TokenId begin_of_text = -1, end_of_text = -1, end_of_turn = -1, unknown = -1, padding = -1;
  bool add_begin = false;
};
/// Throws FormatError for ids outside the vocabulary. `add_begin` of a file that does not say: yes
/// for SentencePiece and Llama 3, as llama.cpp has it.
SpecialTokenIds special_token_ids(const GgufReader& file, const std::string& where);

/// GGUF's name for a way of cutting text, and back. llama.cpp cuts several models' text alike:
/// "olmo" and "default" are GPT-2's way.
std::optional<PreTokenizer> pre_tokenizer_named(std::string_view name);
std::string_view name_of(PreTokenizer pre_tokenizer);

}  // namespace cadre::engine
