#include "cadre/formats/tokenizer.h"

#include <array>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
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

}  // namespace

struct Tokenizer::State {
  bpe::Parts parts;
  std::unordered_map<std::string_view, TokenId> ids;  // views into parts.tokens
  std::vector<std::string> bytes;
  std::vector<char> special;
  bpe::Cutting cutting;
  bpe::Splitter splitter;
  bpe::Merger merger;
  bpe::AddedTokenFinder all_added, plain_added;
  TokenId end_of_text = -1;

  State(bpe::Parts from, const std::string& where);
  std::array<TokenId, 256> byte_ids() const;
  std::unordered_map<std::string, TokenId> whole_words() const;
  void encode(std::string_view text, std::vector<TokenId>& out) const;
  void encode_valid(std::string_view valid, std::vector<TokenId>& out) const;
};

namespace {

/// Runs `make`, and puts where it happened before a complaint that cannot know.
template <typename Make>
auto located(const std::string& where, Make make) {
  try {
    return make();
  } catch (const FormatError& error) {
    throw FormatError("{}: {}", where, error.what());
  }
}

}  // namespace

Tokenizer::State::State(bpe::Parts from, const std::string& where)
    : parts(std::move(from)),
      ids(bpe::index_tokens(parts.tokens, where)),
      bytes(bytes_of(parts)),
      special(parts.tokens.size()),
      cutting(bpe::read_frame(parts.frame, where)),
      splitter(located(where + ": pre_tokenizer", [&] { return bpe::Splitter(cutting.rules); })),
      merger(located(where + ": model: merges",
                     [&] { return bpe::Merger(byte_ids(), parts.merges, whole_words()); })),
      all_added(findable(parts.added, SpecialTokens::kParse)),
      plain_added(findable(parts.added, SpecialTokens::kAsText)) {
  for (const bpe::AddedToken& token : parts.added) special[token.id] = token.special;
  for (const std::string_view name : kEndsOfText) {
    const auto id = ids.find(name);
    if (end_of_text < 0 && id != ids.end() && special[id->second]) end_of_text = id->second;
  }
}

std::array<TokenId, 256> Tokenizer::State::byte_ids() const {
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

std::unordered_map<std::string, TokenId> Tokenizer::State::whole_words() const {
  std::unordered_map<std::string, TokenId> words;
  if (!cutting.ignore_merges) return words;
  std::vector<char> outside(parts.tokens.size());
  for (const bpe::AddedToken& token : parts.added) outside[token.id] = !token.in_vocabulary;
  for (size_t id = 0; id < parts.tokens.size(); ++id)
    if (!outside[id] && !parts.tokens[id].empty())
      words.emplace(bpe::from_letters(parts.tokens[id]), static_cast<TokenId>(id));
  return words;
}

void Tokenizer::State::encode(std::string_view text, std::vector<TokenId>& out) const {
  std::string prefixed;
  if (cutting.add_prefix_space && !text.empty() && text[0] != ' ') {
    prefixed = " ";
    text = prefixed += text;
  }
  while (!text.empty()) {
    const size_t valid = bpe::valid_utf8_prefix(text);
    if (valid > 0) encode_valid(text.substr(0, valid), out);
    text.remove_prefix(valid);
    if (text.empty()) break;
    merger.encode(text.substr(0, 1), out);
    text.remove_prefix(1);
  }
}

void Tokenizer::State::encode_valid(std::string_view valid, std::vector<TokenId>& out) const {
  std::string composed;
  if (cutting.normalize && !bpe::surely_nfc(valid)) valid = composed = bpe::nfc(valid);
  splitter.split(valid, [&](std::string_view word) { merger.encode(word, out); });
}

Tokenizer Tokenizer::load(const std::filesystem::path& file_or_folder) {
  std::filesystem::path file = file_or_folder;
  if (std::filesystem::is_directory(file)) file /= "tokenizer.json";
  return parse(read_file(file), file.string());
}

Tokenizer Tokenizer::parse(std::string_view json, const std::string& where) {
  return Tokenizer(std::make_shared<const State>(bpe::parse_parts(json, where), where));
}

Tokenizer Tokenizer::from_vocabulary(std::vector<std::string> tokens,
                                     const std::vector<std::string>& merges,
                                     PreTokenizer pre_tokenizer, std::vector<TokenId> special,
                                     std::vector<TokenId> added) {
  const std::string where = "vocabulary";
  bpe::Parts parts;
  parts.frame = bpe::frame_of(pre_tokenizer);
  if (pre_tokenizer == PreTokenizer::kQwen2) parts.frame["normalizer"] = {{"type", "NFC"}};
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
  return Tokenizer(std::make_shared<const State>(std::move(parts), where));
}

Tokenizer Tokenizer::train(std::span<const std::string_view> texts,
                           const TokenizerTraining& options) {
  return Tokenizer(std::make_shared<const State>(bpe::train_parts(texts, options), "training"));
}

void Tokenizer::save(const std::filesystem::path& file) const { write_file(file, to_json()); }

std::string Tokenizer::to_json() const { return bpe::to_json(state_->parts); }

std::vector<TokenId> Tokenizer::encode(std::string_view text, SpecialTokens special) const {
  std::vector<TokenId> out;
  out.reserve(text.size() / 3 + 8);
  const auto& finder = special == SpecialTokens::kParse ? state_->all_added : state_->plain_added;
  bpe::AddedTokenFinder::Match match;
  size_t at = 0;
  for (; finder.find(text, at, &match); at = match.end) {
    state_->encode(text.substr(at, match.begin - at), out);
    out.push_back(match.id);
  }
  state_->encode(text.substr(at), out);
  return out;
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::string text;
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocabulary_size())
      throw UsageError("token id {} is outside the vocabulary of {}", id, vocabulary_size());
    text += state_->bytes[id];
  }
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
