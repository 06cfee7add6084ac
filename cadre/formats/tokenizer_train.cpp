#include <algorithm>
#include <mutex>
#include <queue>
#include <span>
#include <unordered_set>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/formats/tokenizer_parts.h"
#include "cadre/formats/tokenizer_text.h"

namespace cadre::bpe {
namespace {

/// A task's share of the text. Fixed, so that the cuts do not depend on the number of threads.
constexpr size_t kChunkBytes = 1 << 20;
/// Longer words (blobs of base64) are learned from in pieces, which bounds the cost of one merge.
constexpr size_t kMaxWordBytes = 256;
/// Longer tokens are memorised text, no vocabulary.
constexpr size_t kMaxTokenBytes = 64;
constexpr int64_t kMaxVocabulary = 1 << 24;

using WordCounts = std::unordered_map<std::string_view, int64_t>;

bool is_ascii_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// Cuts between a letter and a blank before another letter: there every pre-tokenizer cuts as well.
std::vector<std::string_view> chunks_of(std::span<const std::string_view> texts) {
  std::vector<std::string_view> chunks;
  for (std::string_view rest : texts) {
    while (rest.size() > kChunkBytes) {
      size_t cut = kChunkBytes;
      while (cut + 1 < rest.size() && !(is_ascii_letter(rest[cut - 1]) && rest[cut] == ' ' &&
                                        is_ascii_letter(rest[cut + 1])))
        ++cut;
      if (cut + 1 >= rest.size()) break;
      chunks.push_back(rest.substr(0, cut));
      rest.remove_prefix(cut);
    }
    chunks.push_back(rest);
  }
  return chunks;
}

void count_words(std::string_view text, const Splitter& splitter, WordCounts& counts) {
  const auto count = [&](std::string_view word) {
    for (; word.size() > kMaxWordBytes; word.remove_prefix(kMaxWordBytes))
      ++counts[word.substr(0, kMaxWordBytes)];
    ++counts[word];
  };
  while (!text.empty()) {
    const size_t valid = valid_utf8_prefix(text);
    splitter.split(text.substr(0, valid), count);
    // A byte outside UTF-8 is a word by itself, and one byte has nothing to merge.
    text.remove_prefix(std::min(valid + 1, text.size()));
  }
}

WordCounts count_words(std::span<const std::string_view> texts, const Splitter& splitter,
                       const std::function<void(double)>& progress) {
  const auto chunks = chunks_of(texts);
  WordCounts total;
  size_t done = 0;
  std::mutex mutex;
  parallel_tasks(static_cast<int64_t>(chunks.size()), [&](int64_t chunk) {
    WordCounts counts;
    count_words(chunks[chunk], splitter, counts);
    const std::lock_guard lock(mutex);
    for (const auto& [word, count] : counts) total[word] += count;
    if (progress) progress(0.5 * static_cast<double>(++done) / static_cast<double>(chunks.size()));
  });
  return total;
}

uint64_t pair_of(TokenId left, TokenId right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}
TokenId left_of(uint64_t pair) { return static_cast<TokenId>(pair >> 32); }
TokenId right_of(uint64_t pair) { return static_cast<TokenId>(pair & UINT32_MAX); }

/// Counts of adjacent tokens over all words, kept up to date while merges are made.
class PairCounts {
 public:
  PairCounts(const WordCounts& counts, const std::array<TokenId, 256>& bytes) {
    for (const auto& [word, count] : counts) {
      if (word.size() < 2) continue;
      Word& entry = words_.emplace_back();
      entry.count = count;
      for (const char byte : word) entry.tokens.push_back(bytes[static_cast<uint8_t>(byte)]);
      const auto index = static_cast<uint32_t>(words_.size() - 1);
      for (size_t i = 0; i + 1 < entry.tokens.size(); ++i)
        add(pair_of(entry.tokens[i], entry.tokens[i + 1]), index);
    }
    refill_heap();
  }

  /// The most frequent pair, of those the one of lowest ids; false when all are rarer than `least`.
  bool pop(int64_t least, uint64_t* pair) {
    while (!heap_.empty()) {
      const Candidate top = heap_.top();
      heap_.pop();
      const int64_t count = pairs_[top.pair].count;
      if (count == top.count && count >= least && count > 0) {
        *pair = top.pair;
        return true;
      }
      // Counts of pairs in the heap only fall, or are pushed anew: a stale candidate is too high.
      if (count < top.count && count > 0) heap_.push({count, top.pair});
    }
    return false;
  }

  void merge(uint64_t pair, TokenId result) {
    const auto words = std::move(pairs_[pair].words);
    pairs_[pair].words.clear();
    for (const uint32_t index : words) merge_in_word(index, pair, result);
    pairs_[pair].count = 0;
    refill_heap();
  }

 private:
  struct Word {
    std::vector<TokenId> tokens;
    int64_t count;
  };
  struct Pair {
    int64_t count = 0;
    std::vector<uint32_t> words;  ///< every word that has it, and some that had
  };
  struct Candidate {
    int64_t count;
    uint64_t pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };
  struct Hash {
    size_t operator()(uint64_t pair) const { return (pair ^ pair >> 29) * 0x9e3779b97f4a7c15u; }
  };

  void add(uint64_t pair, uint32_t word) {
    Pair& entry = pairs_[pair];
    entry.count += words_[word].count;
    if (entry.words.empty() || entry.words.back() != word) entry.words.push_back(word);
    grown_.insert(pair);
  }

  void merge_in_word(uint32_t index, uint64_t pair, TokenId result) {
    auto& tokens = words_[index].tokens;
    const int64_t count = words_[index].count;
    size_t kept = 0;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i + 1 == tokens.size() || pair_of(tokens[i], tokens[i + 1]) != pair) {
        tokens[kept++] = tokens[i];
        continue;
      }
      if (kept > 0) {
        pairs_[pair_of(tokens[kept - 1], tokens[i])].count -= count;
        add(pair_of(tokens[kept - 1], result), index);
      }
      ++i;
      if (i + 1 < tokens.size()) {
        pairs_[pair_of(tokens[i], tokens[i + 1])].count -= count;
        add(pair_of(result, tokens[i + 1]), index);
      }
      tokens[kept++] = result;
    }
    tokens.resize(kept);
  }

  void refill_heap() {
    for (const uint64_t pair : grown_) heap_.push({pairs_[pair].count, pair});
    grown_.clear();
  }

  std::vector<Word> words_;
  std::unordered_map<uint64_t, Pair, Hash> pairs_;
  std::unordered_set<uint64_t, Hash> grown_;
  std::priority_queue<Candidate> heap_;
};

void check_options(const TokenizerTraining& options) {
  const auto least = static_cast<int64_t>(256 + options.special_tokens.size());
  if (options.vocabulary < least || options.vocabulary > kMaxVocabulary)
    throw UsageError(
        "a vocabulary of {} is impossible: it must hold 256 bytes and {} special tokens, "
        "so choose {} to {}",
        options.vocabulary, options.special_tokens.size(), least, kMaxVocabulary);
  std::unordered_set<std::string> seen;
  for (const std::string& token : options.special_tokens) {
    if (token.empty() || valid_utf8_prefix(token) != token.size())
      throw UsageError("a special token must be valid, non-empty UTF-8");
    if (!seen.insert(token).second) throw UsageError("special token \"{}\" is there twice", token);
    if (from_letters(token).size() == 1)
      throw UsageError("special token \"{}\" is how a single byte is written; choose another",
                       token);
  }
}

}  // namespace

Parts train_parts(std::span<const std::string_view> texts, const TokenizerTraining& options) {
  check_options(options);
  Parts parts;
  parts.frame = frame_of(options.pre_tokenizer);
  for (const std::string& token : options.special_tokens) {
    parts.added.push_back({.id = static_cast<TokenId>(parts.tokens.size()), .content = token});
    parts.tokens.push_back(token);
  }
  std::array<TokenId, 256> bytes;
  for (int i = 0; i < 256; ++i) {
    const uint8_t byte = bytes_in_letter_order()[i];
    bytes[byte] = static_cast<TokenId>(parts.tokens.size());
    parts.tokens.emplace_back(letter_of(byte));
  }
  std::unordered_map<std::string, TokenId> ids;
  for (size_t id = 0; id < parts.tokens.size(); ++id)
    ids.emplace(parts.tokens[id], static_cast<TokenId>(id));

  const Splitter splitter(read_frame(parts.frame, "training").rules);
  PairCounts counts(count_words(texts, splitter, options.progress), bytes);
  std::unordered_set<uint64_t> made;
  uint64_t pair = 0;
  while (static_cast<int64_t>(parts.tokens.size()) < options.vocabulary &&
         counts.pop(std::max<int64_t>(options.min_frequency, 1), &pair)) {
    const TokenId left = left_of(pair), right = right_of(pair);
    const std::string token = parts.tokens[left] + parts.tokens[right];
    if (from_letters(token).size() > kMaxTokenBytes) continue;
    // Two merges may spell the same token; one that spells a special token would turn text into it.
    const auto [id, fresh] = ids.emplace(token, static_cast<TokenId>(parts.tokens.size()));
    if (id->second < static_cast<TokenId>(parts.added.size())) continue;
    if (fresh) parts.tokens.push_back(token);
    if (made.insert(pair).second) parts.merges.push_back({left, right, id->second});
    counts.merge(pair, id->second);
    if (options.progress && parts.tokens.size() % 64 == 0)
      options.progress(0.5 + 0.5 * static_cast<double>(parts.tokens.size()) /
                                 static_cast<double>(options.vocabulary));
  }
  if (options.progress) options.progress(1.0);
  return parts;
}

}  // namespace cadre::bpe
