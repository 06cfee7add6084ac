#pragma once

/// BPE tokenizers in the Hugging Face `tokenizer.json` form: load, train, save, encode, decode.
/// Byte-level ones, and SentencePiece's (Llama 1 and 2), which are not trained here. (Sennrich et
/// al., "Neural Machine Translation of Rare Words with Subword Units", 2016; byte level: GPT-2,
/// 2019.)

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cadre {

using TokenId = int32_t;

/// How text is cut before merging: the names that published vocabularies use.
enum class PreTokenizer {
  kGpt2,
  kLlama3,
  kQwen2,
  kDeepseekCoder,
  kDeepseekLlm,
  kDeepseekV3,
  kGpt4o,      ///< gpt-oss, too
  kStarcoder,  ///< Granite, too
};

struct TokenizerTraining {
  int64_t vocabulary =
      8192;  ///< including 256 bytes and the special tokens; at least 256 + specials
  PreTokenizer pre_tokenizer = PreTokenizer::kGpt2;
  std::vector<std::string> special_tokens = {"<|endoftext|>"};
  int64_t min_frequency = 2;  ///< pairs rarer than this are not merged
  /// Called now and then with the share done in [0, 1]; may be empty.
  std::function<void(double)> progress;
};

/// Immutable and safe to share between threads.
class Tokenizer {
 public:
  /// Reads `tokenizer.json` (or a folder that holds it). Throws IoError, or FormatError that names
  /// the file and the field: a model that is not byte-level BPE, a merge of unknown tokens, ids
  /// that repeat ...
  static Tokenizer load(const std::filesystem::path& file_or_folder);
  /// The same from text; `where` names it in errors.
  static Tokenizer parse(std::string_view json, const std::string& where);
  /// From a vocabulary (token strings in the byte-level alphabet, index = id) and merges ("a b"),
  /// as GGUF stores them. `special` are GGUF's control tokens, `added` its user-defined ones: found
  /// in the text before merging, but ordinary. kQwen2 brings its NFC normalizer, kLlama3 and
  /// kGpt4o take a word that is a token whole, as the published ones do. Throws FormatError.
  static Tokenizer from_vocabulary(std::vector<std::string> tokens,
                                   const std::vector<std::string>& merges,
                                   PreTokenizer pre_tokenizer, std::vector<TokenId> special = {},
                                   std::vector<TokenId> added = {});
  /// A SentencePiece-style BPE vocabulary as GGUF stores it (index = id): pieces in which "▁" is a
  /// blank, their scores, and their types (1 normal, 2 unknown, 3 control, 4 user-defined, 5
  /// unused, 6 byte). With kBeforeText, encode() puts a blank before a text and after each special
  /// token in it, as Llama's tokenizer does. Throws FormatError.
  enum class BlankPrefix { kNone, kBeforeText };
  static Tokenizer from_sentencepiece(std::vector<std::string> pieces, std::vector<float> scores,
                                      std::vector<int32_t> types, BlankPrefix prefix);
  /// Learns merges from the texts; deterministic: ties go to the pair of lower ids. Any bytes are
  /// accepted.
  static Tokenizer train(std::span<const std::string_view> texts, const TokenizerTraining& options);

  /// Writes a `tokenizer.json` that Hugging Face's tokenizers reads. Atomic.
  void save(const std::filesystem::path& file) const;
  std::string to_json() const;

  /// Text (any bytes; invalid UTF-8 is kept byte by byte) to ids. Special tokens in the text become
  /// their id when `SpecialTokens::kParse`, else they are encoded as ordinary text; other added
  /// tokens (runs of blanks, "<think>") always become their id, as the model saw them. A file's
  /// post-processor is kept by save() and otherwise ignored: nothing is put before or after the
  /// text. Throws UsageError for a byte that the vocabulary has no token for (in practice only some
  /// that UTF-8 never uses).
  enum class SpecialTokens { kParse, kAsText };
  std::vector<TokenId> encode(std::string_view text,
                              SpecialTokens special = SpecialTokens::kAsText) const;
  /// Ids to bytes. A blank that encode() puts before a text is dropped only when asked for: a
  /// continuation that is decoded token by token must keep its own. Throws UsageError for an id
  /// outside the vocabulary.
  enum class Place { kMiddle, kStartOfText };
  std::string decode(std::span<const TokenId> ids, Place place = Place::kMiddle) const;

  int64_t vocabulary_size() const;
  /// The id of a token given in its stored form, or -1.
  TokenId id_of(std::string_view token) const;
  /// The stored form (byte-level alphabet), e.g. "Ġthe".
  const std::string& token(TokenId id) const;
  bool is_special(TokenId id) const;
  /// The id that ends a text ("<|endoftext|>" and its kin), or -1.
  TokenId end_of_text() const;

 private:
  struct State;
  explicit Tokenizer(std::shared_ptr<const State> state) : state_(std::move(state)) {}
  std::shared_ptr<const State> state_;
};

}  // namespace cadre
