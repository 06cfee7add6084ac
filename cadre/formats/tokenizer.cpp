#include "cadre/formats/tokenizer.h"

#include <array>
#include <optional>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/spm.h"
#include "cadre/formats/tokenizer_added.h"
#include "cadre/formats/tokenizer_parts.h"
#include "cadre/formats/tokenizer_text.h"

namespace cadre {
namespace {

constexpr std::string_view kEndsOfText[] = {"<|endoftext|>", "<|end_of_text|>",
                                            "<｜end▁of▁sentence｜>", "</s>", "<eos>"};

/// What each token stands for in a text.
std::vector<std::string> bytes_of(const bpe::Parts& parts) {
  std::vector<std::string> bytes;
  bytes.reserve(parts.tokens.size());
  for (const std::string& token : parts.tokens) bytes.push_back(bpe::from_letters(token));
  for (const bpe::AddedToken& token : parts.added) bytes[token.id] = token.content;
  return bytes;
}

/// The added tokens that are found in every text, or all.
std::vector<bpe::AddedToken> findable(const std::vector<bpe::AddedToken>& added,
                                      Tokenizer::SpecialTokens special) {
  std::vector<bpe::AddedToken> tokens;
  for (const bpe::AddedToken& token : added)
    if (special == Tokenizer::SpecialTokens::kParse || !token.special) tokens.push_back(token);
  return tokens;
}

std::vector<std::string> texts_of(const spm::Vocabulary& vocabulary) {
  std::vector<std::string> texts;
  texts.reserve(vocabulary.pieces.size());
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id)
    texts.push_back(spm::text_of(vocabulary.pieces[id], vocabulary.types[id]));
  return texts;
}

/// From a piece of text without added tokens to ids.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;
  virtual void encode(std::string_view text, std::vector<TokenId>& out) const = 0;
};

/// Runs `make`, and puts where it happened before a complaint that cannot know.
template <typename Make>
auto located(const std::string& where, Make make) {
  try {
    return make();
  } catch (const FormatError& error) {
    throw FormatError("{}: {}", where, error.what());
  }
}

using Ids = std::unordered_map<std::string_view, TokenId>;

class ByteLevelEncoder : public TextEncoder {
 public:
  ByteLevelEncoder(const bpe::Parts& parts, const Ids& ids, const std::vector<std::string>& bytes,
                   const std::string& where)
      : cutting_(bpe::read_frame(parts.frame, where)),
        splitter_(
            located(where + ": pre_tokenizer", [&] { return bpe::Splitter(cutting_.rules); })),
        merger_(located(where + ": model: merges", [&] {
          return bpe::Merger(byte_ids(ids, bytes), parts.merges, whole_words(parts));
        })) {}

  void encode(std::string_view text, std::vector<TokenId>& out) const override;

 private:
  static std::array<TokenId, 256> byte_ids(const Ids& ids, const std::vector<std::string>& bytes);
  std::unordered_map<std::string, TokenId> whole_words(const bpe::Parts& parts) const;
  void encode_valid(std::string_view valid, std::vector<TokenId>& out) const;

  bpe::Cutting cutting_;
  bpe::Splitter splitter_;
  bpe::Merger merger_;
};

std::array<TokenId, 256> ByteLevelEncoder::byte_ids(const Ids& ids,
                                                    const std::vector<std::string>& bytes) {
  std::array<TokenId, 256> result;
  for (int byte = 0; byte < 256; ++byte) {
    const auto id = ids.find(bpe::letter_of(static_cast<uint8_t>(byte)));
    // An added token "õ" means the text, not byte 0xf5.
    const bool found =
        id != ids.end() && bytes[id->second] == std::string(1, static_cast<char>(byte));
    result[byte] = found ? id->second : -1;
  }
  return result;
}

std::unordered_map<std::string, TokenId> ByteLevelEncoder::whole_words(
    const bpe::Parts& parts) const {
  std::unordered_map<std::string, TokenId> words;
  if (!cutting_.ignore_merges) return words;
  std::vector<char> outside(parts.tokens.size());
  for (const bpe::AddedToken& token : parts.added) outside[token.id] = !token.in_vocabulary;
  for (size_t id = 0; id < parts.tokens.size(); ++id)
    if (!outside[id] && !parts.tokens[id].empty())
      words.emplace(bpe::from_letters(parts.tokens[id]), static_cast<TokenId>(id));
  return words;
}

void ByteLevelEncoder::encode(std::string_view text, std::vector<TokenId>& out) const {
  std::string prefixed;
  if (cutting_.add_prefix_space && !text.empty() && text[0] != ' ') {
    prefixed = " ";
    text = prefixed += text;
  }
  while (!text.empty()) {
    const size_t valid = bpe::valid_utf8_prefix(text);
    if (valid > 0) encode_valid(text.substr(0, valid), out);
    text.remove_prefix(valid);
    if (text.empty()) break;
    merger_.encode(text.substr(0, 1), out);
    text.remove_prefix(1);
  }
}

void ByteLevelEncoder::encode_valid(std::string_view valid, std::vector<TokenId>& out) const {
  std::string composed;
  if (cutting_.normalize && !bpe::surely_nfc(valid)) valid = composed = bpe::nfc(valid);
  splitter_.split(valid, [&](std::string_view word) { merger_.encode(word, out); });
}

class SentencePieceEncoder : public TextEncoder {
 public:
  SentencePieceEncoder(const spm::Vocabulary& vocabulary, const std::string& where)
      : encoder_(vocabulary, where) {}
  void encode(std::string_view text, std::vector<TokenId>& out) const override {
    encoder_.encode(text, out);
  }

 private:
  spm::Encoder encoder_;
};

}  // namespace

struct Tokenizer::State {
  bpe::Parts parts;
  std::optional<spm::Vocabulary> pieces;  // of SentencePiece vocabularies
  Ids ids;                                // views into parts.tokens
  std::vector<std::string> bytes;
  std::vector<char> special;
  std::unique_ptr<const TextEncoder> encoder;
  bpe::AddedTokenFinder all_added, plain_added;
  TokenId end_of_text = -1;

  State(bpe::Parts from, std::optional<spm::Vocabulary> vocabulary, const std::string& where);
};

Tokenizer::State::State(bpe::Parts from, std::optional<spm::Vocabulary> vocabulary,
                        const std::string& where)
    : parts(std::move(from)),
      pieces(std::move(vocabulary)),
      ids(bpe::index_tokens(parts.tokens, where)),
      bytes(pieces ? texts_of(*pieces) : bytes_of(parts)),
      special(parts.tokens.size()),
      all_added(findable(parts.added, SpecialTokens::kParse)),
      plain_added(findable(parts.added, SpecialTokens::kAsText)) {
  if (pieces)
    encoder = std::make_unique<SentencePieceEncoder>(*pieces, where);
  else
    encoder = std::make_unique<ByteLevelEncoder>(parts, ids, bytes, where);
  for (const bpe::AddedToken& token : parts.added) special[token.id] = token.special;
  for (const std::string_view name : kEndsOfText) {
    const auto id = ids.find(name);
    if (end_of_text < 0 && id != ids.end() && special[id->second]) end_of_text = id->second;
  }
}

Tokenizer Tokenizer::load(const std::filesystem::path& file_or_folder) {
  std::filesystem::path file = file_or_folder;
  if (std::filesystem::is_directory(file)) file /= "tokenizer.json";
  return parse(read_file(file), file.string());
}

Tokenizer Tokenizer::parse(std::string_view json, const std::string& where) {
  bpe::Parts parts = bpe::parse_parts(json, where);
  std::optional<spm::Vocabulary> pieces;
  if (spm::is_spm(parts.frame)) pieces = spm::vocabulary_of(parts, where);
  return Tokenizer(std::make_shared<const State>(std::move(parts), std::move(pieces), where));
}

Tokenizer Tokenizer::from_vocabulary(std::vector<std::string> tokens,
                                     const std::vector<std::string>& merges,
                                     PreTokenizer pre_tokenizer, std::vector<TokenId> special,
                                     std::vector<TokenId> added) {
  const std::string where = "vocabulary";
  bpe::Parts parts;
  parts.frame = bpe::frame_of(pre_tokenizer);
  if (pre_tokenizer == PreTokenizer::kQwen2) parts.frame["normalizer"] = {{"type", "NFC"}};
  if (pre_tokenizer == PreTokenizer::kLlama3 || pre_tokenizer == PreTokenizer::kGpt4o)
    parts.frame["model"]["ignore_merges"] = true;
  parts.tokens = std::move(tokens);
  for (size_t id = 0; id < parts.tokens.size(); ++id) {
    const std::string& token = parts.tokens[id];
    if (token.empty() || bpe::valid_utf8_prefix(token) != token.size())
      throw FormatError("{}: token {} is not valid, non-empty UTF-8", where, id);
  }
  const auto add = [&](TokenId id, bool is_special) {
    if (id < 0 || static_cast<size_t>(id) >= parts.tokens.size())
      throw FormatError("{}: added id {} is outside the {} tokens", where, id, parts.tokens.size());
    parts.added.push_back({.id = id, .content = parts.tokens[id], .special = is_special});
  };
  for (const TokenId id : special) add(id, true);
  for (const TokenId id : added) add(id, false);
  const auto ids = bpe::index_tokens(parts.tokens, where);
  for (const std::string& merge : merges) {
    const auto [left, right] = bpe::split_merge(merge, where);
    parts.merges.push_back(bpe::resolve_merge(left, right, ids, where));
  }
  return Tokenizer(std::make_shared<const State>(std::move(parts), std::nullopt, where));
}

Tokenizer Tokenizer::from_sentencepiece(std::vector<std::string> pieces, std::vector<float> scores,
                                        std::vector<int32_t> types, BlankPrefix prefix) {
  const std::string where = "vocabulary";
  spm::Vocabulary vocabulary = {.pieces = std::move(pieces),
                                .scores = std::move(scores),
                                .types = std::move(types),
                                .add_space_prefix = prefix == BlankPrefix::kBeforeText};
  vocabulary.check(where);
  bpe::Parts parts = spm::parts_without_merges(vocabulary);
  return Tokenizer(std::make_shared<const State>(std::move(parts), std::move(vocabulary), where));
}

Tokenizer Tokenizer::train(std::span<const std::string_view> texts,
                           const TokenizerTraining& options) {
  return Tokenizer(
      std::make_shared<const State>(bpe::train_parts(texts, options), std::nullopt, "training"));
}

void Tokenizer::save(const std::filesystem::path& file) const { write_file(file, to_json()); }

std::string Tokenizer::to_json() const {
  const bool merges_missing = state_->pieces && state_->parts.merges.empty();
  return bpe::to_json(merges_missing ? spm::parts_of(*state_->pieces) : state_->parts);
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  std::vector<TokenId> out;
  out.reserve(text.size() / 3 + 8);
  const auto& finder = special == SpecialTokens::kParse ? state_->all_added : state_->plain_added;
  bpe::AddedTokenFinder::Match match;
  size_t at = 0;
  for (; finder.find(text, at, &match); at = match.end) {
    state_->encoder->encode(text.substr(at, match.begin - at), out);
    out.push_back(match.id);
  }
  state_->encoder->encode(text.substr(at), out);
  return out;
}

std::string Tokenizer::decode(std::span<const TokenId> ids, Place place) const {
  std::string text;
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocabulary_size())
      throw UsageError("token id {} is outside the vocabulary of {}", id, vocabulary_size());
    text += state_->bytes[id];
  }
  const bool prefixed = state_->pieces && state_->pieces->add_space_prefix;
  if (place == Place::kStartOfText && prefixed && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

int64_t Tokenizer::vocabulary_size() const {
  return static_cast<int64_t>(state_->parts.tokens.size());
}

TokenId Tokenizer::id_of(std::string_view token) const {
  const auto id = state_->ids.find(token);
  return id == state_->ids.end() ? -1 : id->second;
}

const std::string& Tokenizer::token(TokenId id) const {
  if (id < 0 || id >= vocabulary_size())
    throw UsageError("token id {} is outside the vocabulary of {}", id, vocabulary_size());
  return state_->parts.tokens[id];
}

bool Tokenizer::is_special(TokenId id) const {
  return id >= 0 && id < vocabulary_size() && state_->special[id];
}

TokenId Tokenizer::end_of_text() const { return state_->end_of_text; }

}  // namespace cadre
