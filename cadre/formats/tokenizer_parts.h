#pragma once

/// What a tokenizer is made of, between its file and the object that encodes.

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/formats/tokenizer.h"
#include "cadre/formats/tokenizer_bpe.h"
#include "cadre/formats/tokenizer_split.h"

namespace cadre::bpe {

/// A token that is found in the text before anything is cut or merged.
struct AddedToken {
  TokenId id = -1;
  std::string content;
  bool special = true;
  bool strips_left = false, strips_right = false;  ///< takes the white space beside it along
  bool single_word = false;                        ///< only where no word character adjoins
  bool normalized = false;    ///< kept for save; we look for every added token in the raw text
  bool in_vocabulary = true;  ///< listed in model.vocab too
};

struct Parts {
  std::vector<std::string> tokens;  ///< stored forms by id; empty where an id is unused
  std::vector<Merge> merges;        ///< by rank
  std::vector<AddedToken> added;
  /// The rest of tokenizer.json: everything but model.vocab, model.merges and added_tokens.
  nlohmann::json frame;
};

/// What the frame asks for.
struct Cutting {
  std::vector<SplitRule> rules;
  bool add_prefix_space = false;
  bool normalize = false;  ///< to NFC
  bool ignore_merges = false;
};

/// The frame of a published way of cutting, without a normalizer.
nlohmann::json frame_of(PreTokenizer pre_tokenizer);
/// Throws FormatError that names `where` and the field that is not supported.
Cutting read_frame(const nlohmann::json& frame, const std::string& where);

/// tokenizer.json to parts and back. Throws FormatError that names `where` and the field.
Parts parse_parts(std::string_view json, const std::string& where);
std::string to_json(const Parts& parts);

/// The ids of the stored forms. Throws FormatError when two ids share one.
std::unordered_map<std::string_view, TokenId> index_tokens(const std::vector<std::string>& tokens,
                                                           const std::string& where);

/// "Ġt he" as ids. Throws FormatError when it is no pair of known tokens whose union is known.
Merge resolve_merge(std::string_view left, std::string_view right,
                    const std::unordered_map<std::string_view, TokenId>& ids,
                    const std::string& where);
/// The two halves of "a b".
std::pair<std::string_view, std::string_view> split_merge(std::string_view merge,
                                                          const std::string& where);

/// Learns a vocabulary; see Tokenizer::train.
Parts train_parts(std::span<const std::string_view> texts, const TokenizerTraining& options);

}  // namespace cadre::bpe
