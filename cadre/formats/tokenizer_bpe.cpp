#include "cadre/formats/tokenizer_bpe.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <queue>

#include "cadre/base/error.h"

namespace cadre::bpe {
namespace {

constexpr size_t kShortWord = 64;

uint64_t key_of(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

uint64_t mix(uint64_t key) {
  key ^= key >> 32;
  return key * 0x9e3779b97f4a7c15u;
}

/// The tokens of a word seen before: one cache line.
struct CachedWord {
  static constexpr size_t kMaxBytes = 26, kMaxTokens = 8;
  uint32_t owner = 0;
  uint8_t bytes = 0, tokens = 0;
  char word[kMaxBytes];
  TokenId ids[kMaxTokens];
};
static_assert(sizeof(CachedWord) == 64);

CachedWord& cached(std::string_view word) {
  constexpr size_t kWords = 1 << 14;
  thread_local std::vector<CachedWord> words(kWords);
  return words[std::hash<std::string_view>{}(word) % kWords];
}

}  // namespace

Merger::Merger(const std::array<TokenId, 256>& bytes, const std::vector<Merge>& merges,
               std::unordered_map<std::string, TokenId> whole_words)
    : bytes_(bytes), byte_rules_(1 << 16), whole_words_(std::move(whole_words)) {
  static std::atomic<uint32_t> mergers{0};
  serial_ = ++mergers;
  const size_t size = std::bit_ceil(std::max<size_t>(2 * merges.size(), 16));
  slots_.resize(size);
  shift_ = 64 - std::countr_zero(size);
  for (size_t rank = 0; rank < merges.size(); ++rank)
    insert(merges[rank], static_cast<uint32_t>(rank));
  for (int left = 0; left < 256; ++left)
    for (int right = 0; right < 256; ++right)
      byte_rules_[left << 8 | right] = rule_for(bytes_[left], bytes_[right]);
}

void Merger::insert(const Merge& merge, uint32_t rank) {
  const uint64_t pair = key_of(merge.left, merge.right);
  size_t at = mix(pair) >> shift_;
  while (slots_[at].pair != UINT64_MAX) {
    if (slots_[at].pair == pair)
      throw FormatError("merge {} repeats merge {}", rank, slots_[at].rule.rank);
    at = (at + 1) & (slots_.size() - 1);
  }
  slots_[at] = {pair, {rank, merge.result}};
}

Merger::Rule Merger::rule_for(TokenId left, TokenId right) const {
  const uint64_t pair = key_of(left, right);
  for (size_t at = mix(pair) >> shift_;; at = (at + 1) & (slots_.size() - 1)) {
    if (slots_[at].pair == pair) return slots_[at].rule;
    if (slots_[at].pair == UINT64_MAX) return {};
  }
}

Merger::Rule Merger::rule_for_bytes(char left, char right) const {
  return byte_rules_[static_cast<uint8_t>(left) << 8 | static_cast<uint8_t>(right)];
}

void Merger::encode(std::string_view word, std::vector<TokenId>& out) const {
  if (word.size() > CachedWord::kMaxBytes) return merge_word(word, out);
  CachedWord& entry = cached(word);
  if (entry.owner == serial_ && std::string_view(entry.word, entry.bytes) == word) {
    out.insert(out.end(), entry.ids, entry.ids + entry.tokens);
    return;
  }
  const size_t before = out.size();
  merge_word(word, out);
  const size_t tokens = out.size() - before;
  if (tokens > CachedWord::kMaxTokens) return;
  entry.owner = serial_;
  entry.bytes = static_cast<uint8_t>(word.size());
  entry.tokens = static_cast<uint8_t>(tokens);
  std::copy(word.begin(), word.end(), entry.word);
  std::copy(out.begin() + static_cast<ptrdiff_t>(before), out.end(), entry.ids);
}

void Merger::merge_word(std::string_view word, std::vector<TokenId>& out) const {
  if (!whole_words_.empty()) {
    const auto whole = whole_words_.find(std::string(word));
    if (whole != whole_words_.end()) {
      out.push_back(whole->second);
      return;
    }
  }
  for (const char byte : word)
    if (bytes_[static_cast<uint8_t>(byte)] < 0)
      throw UsageError("the tokenizer has no token for byte 0x{:02x}", static_cast<uint8_t>(byte));
  word.size() <= kShortWord ? merge_short(word, out) : merge_long(word, out);
}

void Merger::merge_short(std::string_view word, std::vector<TokenId>& out) const {
  size_t size = word.size();
  if (size == 0) return;
  TokenId ids[kShortWord];
  Rule rules[kShortWord];  // of the pair that begins at each place; the last has none
  for (size_t i = 0; i < size; ++i) ids[i] = bytes_[static_cast<uint8_t>(word[i])];
  for (size_t i = 0; i + 1 < size; ++i) rules[i] = rule_for_bytes(word[i], word[i + 1]);
  while (size > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < size; ++i)
      if (rules[i].rank < rules[best].rank) best = i;
    if (rules[best].rank == kNoRank) break;
    ids[best] = rules[best].result;
    std::copy(ids + best + 2, ids + size, ids + best + 1);
    std::copy(rules + best + 1, rules + size - 1, rules + best);
    --size;
    if (best + 1 < size) rules[best] = rule_for(ids[best], ids[best + 1]);
    if (best > 0) rules[best - 1] = rule_for(ids[best - 1], ids[best]);
  }
  out.insert(out.end(), ids, ids + size);
}

/// A token of a long word in a doubly linked list, with the rule of the pair it begins.
struct Merger::Node {
  int32_t previous, next;
  TokenId id;
  Rule rule;
};

void Merger::merge_long(std::string_view word, std::vector<TokenId>& out) const {
  if (word.size() > INT32_MAX) throw UsageError("a word of {} bytes is too long", word.size());
  const auto size = static_cast<int32_t>(word.size());
  std::vector<Node> nodes(word.size());
  // A candidate is (rank, place) in one number; it is stale when the place has another rule by now.
  std::vector<uint64_t> first;
  first.reserve(word.size());
  const auto candidate = [&](int32_t i) { return uint64_t{nodes[i].rule.rank} << 32 | i; };
  for (int32_t i = 0; i < size; ++i) {
    const Rule rule = i + 1 < size ? rule_for_bytes(word[i], word[i + 1]) : Rule{};
    nodes[i] = {i - 1, i + 1 < size ? i + 1 : -1, bytes_[static_cast<uint8_t>(word[i])], rule};
    if (rule.rank != kNoRank) first.push_back(candidate(i));
  }
  std::priority_queue heap(std::greater<uint64_t>{}, std::move(first));
  const auto update = [&](int32_t i) {
    Node& node = nodes[i];
    node.rule = node.next < 0 ? Rule{} : rule_for(node.id, nodes[node.next].id);
    if (node.rule.rank != kNoRank) heap.push(candidate(i));
  };
  while (!heap.empty()) {
    const uint64_t top = heap.top();
    heap.pop();
    const auto at = static_cast<int32_t>(top & INT32_MAX);
    Node& node = nodes[at];
    if (candidate(at) != top) continue;
    node.id = node.rule.result;
    nodes[node.next].rule = {};  // gone
    node.next = nodes[node.next].next;
    if (node.next >= 0) nodes[node.next].previous = at;
    update(at);
    if (node.previous >= 0) update(node.previous);
  }
  for (int32_t i = 0; i >= 0; i = nodes[i].next) out.push_back(nodes[i].id);
}

}  // namespace cadre::bpe
