#include "cadre/formats/tokenizer_bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::bpe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::array<TokenId, 256> identity() {
  std::array<TokenId, 256> bytes;
  for (int i = 0; i < 256; ++i) bytes[i] = i;
  return bytes;
}

std::vector<TokenId> encode(const Merger& merger, std::string_view word) {
  std::vector<TokenId> ids;
  merger.encode(word, ids);
  return ids;
}

/// The definition: again and again the leftmost pair of lowest rank.
std::vector<TokenId> reference(const std::vector<Merge>& merges, std::string_view word) {
  std::vector<TokenId> ids;
  for (const char byte : word) ids.push_back(static_cast<uint8_t>(byte));
  while (true) {
    std::optional<size_t> place, best;
    for (size_t i = 0; i + 1 < ids.size(); ++i)
      for (size_t rank = 0; rank < best.value_or(merges.size()); ++rank)
        if (merges[rank].left == ids[i] && merges[rank].right == ids[i + 1]) {
          best = rank;
          place = i;
        }
    if (!place) return ids;
    ids[*place] = merges[*best].result;
    ids.erase(ids.begin() + static_cast<ptrdiff_t>(*place) + 1);
  }
}

/// Random merges over "abcd"; with `ordered`, no merge comes before those that make its halves.
std::vector<Merge> random_merges(Random& random, bool ordered) {
  std::vector<Merge> merges;
  std::vector<TokenId> tokens{'a', 'b', 'c', 'd'};
  TokenId next = 256;
  while (merges.size() < 40) {
    const Merge merge{tokens[random.below(tokens.size())], tokens[random.below(tokens.size())],
                      next};
    if (std::any_of(merges.begin(), merges.end(), [&](const Merge& other) {
          return other.left == merge.left && other.right == merge.right;
        }))
      continue;
    merges.push_back(merge);
    tokens.push_back(next++);
  }
  if (!ordered) std::shuffle(merges.begin(), merges.end(), random);
  return merges;
}

TEST(TokenizerBpe, AgreesWithTheDefinitionOnShortAndLongWords) {
  Random random(1);
  for (int round = 0; round < 40; ++round) {
    const auto merges = random_merges(random, round % 2 == 0);
    const Merger merger(identity(), merges);
    for (const size_t size : {0, 1, 2, 3, 7, 26, 27, 63, 64, 65, 200}) {
      std::string word;
      const uint64_t letters = 1 + random.below(4);
      for (size_t i = 0; i < size; ++i) word += static_cast<char>('a' + random.below(letters));
      ASSERT_EQ(encode(merger, word), reference(merges, word)) << word;
      ASSERT_EQ(encode(merger, word), reference(merges, word)) << "from the cache: " << word;
    }
  }
}

TEST(TokenizerBpe, TheCacheKeepsMergersApart) {
  const Merger joins(identity(), {{'a', 'b', 300}});
  const Merger keeps(identity(), {});
  for (int round = 0; round < 3; ++round) {
    EXPECT_THAT(encode(joins, "ab"), ElementsAre(300));
    EXPECT_THAT(encode(keeps, "ab"), ElementsAre('a', 'b'));
  }
  EXPECT_THAT(encode(joins, ""), IsEmpty());
}

TEST(TokenizerBpe, WholeWordsGoFirst) {
  const Merger merger(identity(), {{'b', 'c', 300}}, {{"abc", 301}});
  EXPECT_THAT(encode(merger, "abc"), ElementsAre(301));
  EXPECT_THAT(encode(merger, "abcd"), ElementsAre('a', 300, 'd'));
}

TEST(TokenizerBpe, AMillionEqualLettersMergeInPairs) {
  const Merger merger(identity(), {{'a', 'a', 300}, {300, 300, 301}});
  EXPECT_EQ(encode(merger, std::string(1 << 20, 'a')), std::vector<TokenId>(1 << 18, 301));
}

TEST(TokenizerBpe, Rejects) {
  EXPECT_THROW(Merger(identity(), {{'a', 'a', 300}, {'a', 'a', 301}}), FormatError);
  auto bytes = identity();
  bytes['x'] = -1;
  EXPECT_THROW(encode(Merger(bytes, {}), "axb"), UsageError);
}

}  // namespace
}  // namespace cadre::bpe
