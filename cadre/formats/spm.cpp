#include "cadre/formats/spm.h"

#include <algorithm>
#include <cmath>
#include <queue>

#include "cadre/base/error.h"
#include "cadre/formats/json.h"
#include "cadre/formats/tokenizer_text.h"

namespace cadre::spm {
namespace {

constexpr size_t kMaxPiece = 1024;  // SentencePiece makes none longer than 16 characters

/// Bytes of the character that a text (not empty) begins with; one that is no part of valid UTF-8
/// stands alone.
size_t character_size(std::string_view text) {
  const auto first = static_cast<unsigned char>(text[0]);
  const size_t size = first < 0xc0 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  return bpe::valid_utf8_prefix(text.substr(0, size)) == size ? size : 1;
}

std::string with_blanks_marked(std::string_view text) {
  std::string marked;
  marked.reserve(text.size() + 16);
  for (const char c : text) {
    if (c == ' ')
      marked += kBlank;
    else
      marked += c;
  }
  return marked;
}

}  // namespace

void Vocabulary::check(const std::string& where) const {
  if (pieces.empty()) throw FormatError("{}: the vocabulary is empty", where);
  if (scores.size() != pieces.size() || types.size() != pieces.size())
    throw FormatError("{}: {} pieces, but {} scores and {} types", where, pieces.size(),
                      scores.size(), types.size());
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (types[id] < kNormal || types[id] > kByte)
      throw FormatError("{}: token {} has the unknown type {}", where, id, types[id]);
    if (pieces[id].size() > kMaxPiece || bpe::valid_utf8_prefix(pieces[id]) != pieces[id].size())
      throw FormatError("{}: token {} is not valid UTF-8 of at most {} bytes", where, id,
                        kMaxPiece);
    if (std::isnan(scores[id])) throw FormatError("{}: the score of token {} is NaN", where, id);
    if (types[id] == kByte && byte_of(pieces[id]) < 0)
      throw FormatError("{}: token {} is {}, must be a byte like \"<0x0A>\"", where, id,
                        quote(pieces[id]));
  }
}

int byte_of(std::string_view piece) {
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const size_t high = kDigits.find(piece[3]), low = kDigits.find(piece[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return -1;
  return static_cast<int>(high * 16 + low);
}

std::string text_of(const std::string& piece, int32_t type) {
  if (type == kByte) return std::string(1, static_cast<char>(byte_of(piece)));
  if (type != kNormal && type != kUnused) return piece;
  std::string text;
  for (size_t at = 0; at < piece.size();) {
    const bool blank = std::string_view(piece).substr(at).starts_with(kBlank);
    text += blank ? ' ' : piece[at];
    at += blank ? kBlank.size() : 1;
  }
  return text;
}

Encoder::Encoder(const Vocabulary& vocabulary, const std::string& where)
    : add_space_prefix_(vocabulary.add_space_prefix) {
  bytes_.fill(-1);
  vocabulary.check(where);
  for (size_t i = 0; i < vocabulary.pieces.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    const std::string& piece = vocabulary.pieces[i];
    const int32_t type = vocabulary.types[i];
    if (type == kByte) bytes_[byte_of(piece)] = id;
    if (type == kUnknown && unknown_ < 0) unknown_ = id;
    if (type != kNormal && type != kUserDefined && type != kUnused) continue;
    const float score = vocabulary.scores[i];
    const bool mergeable = score > -INFINITY;
    const auto [other, fresh] = pieces_.emplace(piece, Piece{id, score, mergeable});
    if (!fresh)
      throw FormatError("{}: ids {} and {} are both {}", where, other->second.id, id, quote(piece));
  }
}

/// A part of the text: a doubly linked list in the order of the text. Merged-away ones are empty.
struct Encoder::Symbol {
  int32_t previous, next;
  std::string_view text;
};

void Encoder::merge(std::vector<Symbol>& symbols) const {
  struct Pair {
    float score;
    int32_t left, right;
    size_t size;                               // of both: tells whether they are as they were
    bool operator<(const Pair& other) const {  // the greatest goes first
      return score != other.score ? score < other.score : left > other.left;
    }
  };
  std::priority_queue<Pair> pairs;
  const auto consider = [&](int32_t left, int32_t right) {
    if (left < 0 || right < 0) return;
    const std::string_view first = symbols[left].text;
    const std::string whole(first.data(), first.size() + symbols[right].text.size());
    const auto piece = pieces_.find(whole);
    if (piece == pieces_.end() || !piece->second.mergeable) return;
    pairs.push({piece->second.score, left, right, whole.size()});
  };
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 1; i < count; ++i) consider(i - 1, i);
  while (!pairs.empty()) {
    const Pair pair = pairs.top();
    pairs.pop();
    Symbol& left = symbols[pair.left];
    Symbol& right = symbols[pair.right];
    const bool stale = left.text.empty() || right.text.empty() ||
                       left.text.size() + right.text.size() != pair.size;
    if (stale) continue;
    left.text = {left.text.data(), pair.size};
    right.text = {};
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = pair.left;
    consider(left.previous, pair.left);
    consider(pair.left, left.next);
  }
}

void Encoder::append_bytes(std::string_view text, std::vector<TokenId>& out) const {
  const bool covered = std::all_of(
      text.begin(), text.end(), [&](char c) { return bytes_[static_cast<unsigned char>(c)] >= 0; });
  if (!covered && unknown_ < 0)
    throw UsageError("the vocabulary has no token for {}", quote(std::string(text)));
  if (!covered) return out.push_back(unknown_);
  for (const char c : text) out.push_back(bytes_[static_cast<unsigned char>(c)]);
}

void Encoder::encode(std::string_view text, std::vector<TokenId>& out) const {
  if (text.empty()) return;
  std::string marked = with_blanks_marked(text);
  if (add_space_prefix_) marked.insert(0, kBlank);
  std::vector<Symbol> symbols;
  symbols.reserve(marked.size());
  for (size_t at = 0; at < marked.size();) {
    const size_t size = character_size(std::string_view(marked).substr(at));
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({index - 1, index + 1, std::string_view(marked).substr(at, size)});
    at += size;
  }
  symbols.back().next = -1;
  merge(symbols);
  for (const Symbol& symbol : symbols) {
    if (symbol.text.empty()) continue;
    const auto piece = pieces_.find(std::string(symbol.text));
    if (piece == pieces_.end())
      append_bytes(symbol.text, out);
    else
      out.push_back(piece->second.id);
  }
}

}  // namespace cadre::spm
