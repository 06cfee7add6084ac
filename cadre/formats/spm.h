#pragma once

/// SentencePiece-style BPE (Llama 1 and 2, Mixtral, Gemma): blanks become "▁", characters merge by
/// the score of the piece they make, what no piece covers becomes its bytes. (Kudo and Richardson,
/// "SentencePiece", 2018.)

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "cadre/formats/tokenizer_parts.h"

namespace cadre::spm {

/// Kinds of pieces, as SentencePiece and GGUF number them.
enum PieceType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

/// "▁", which stands for a blank.
inline constexpr std::string_view kBlank = "\xe2\x96\x81";

/// What GGUF stores: index = id.
struct Vocabulary {
  std::vector<std::string> pieces;
  std::vector<float> scores;   ///< the higher, the earlier a piece is made
  std::vector<int32_t> types;  ///< PieceType
  bool add_space_prefix = true;

  /// Throws FormatError: lists of different lengths, an unknown type, a score that is no number,
  /// no piece at all.
  void check(const std::string& where) const;
};

/// The byte that "<0x0A>" stands for, or -1.
int byte_of(std::string_view piece);
/// What a piece stands for in a text: "▁" as a blank, "<0x0A>" as its byte.
std::string text_of(const std::string& piece, int32_t type);

/// From a tokenizer.json of model type BPE with byte_fallback, and back. Only the order of the
/// scores survives. Throws FormatError that names `where` and the field.
bool is_spm(const nlohmann::json& frame);
Vocabulary vocabulary_of(const bpe::Parts& parts, const std::string& where);
bpe::Parts parts_of(const Vocabulary& vocabulary);
/// The same without merges, which take a while to find.
bpe::Parts parts_without_merges(const Vocabulary& vocabulary);

/// Immutable and safe to share between threads.
class Encoder {
 public:
  /// Throws FormatError when two pieces that text can become are the same.
  Encoder(const Vocabulary& vocabulary, const std::string& where);

  /// Appends the tokens of a text (any bytes). n log n. Throws UsageError for a character that has
  /// no piece, in a vocabulary without bytes and unknown token.
  void encode(std::string_view text, std::vector<TokenId>& out) const;

 private:
  struct Piece {
    TokenId id;
    float score;
    bool mergeable;
  };
  struct Symbol;

  void merge(std::vector<Symbol>& symbols) const;
  void append_bytes(std::string_view text, std::vector<TokenId>& out) const;

  bool add_space_prefix_;
  std::unordered_map<std::string, Piece> pieces_;
  std::array<TokenId, 256> bytes_;
  TokenId unknown_ = -1;
};

}  // namespace cadre::spm
