#include "cadre/engine/prefix_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>

#include "cadre/engine/test_sequences.h"

namespace cadre::engine {
namespace {

using Ids = std::vector<TokenId>;

class PrefixCaching : public testing::Test {
 protected:
  std::unique_ptr<Sequence> sequence(const Ids& ids) {
    auto made = model_.new_sequence();
    const SequenceModel::Slice slice{made.get(), ids, Model::Slice::Want::kNone};
    model_.forward({&slice, 1});
    return made;
  }
  static Ids found(PrefixCache& cache, const Ids& ids) {
    const auto sequence = cache.find(ids);
    return sequence ? sequence->tokens() : Ids{};
  }

  TestSequences model_{10};
};

TEST_F(PrefixCaching, FindsTheLongestBeginningButNeverAll) {
  PrefixCache cache(100);
  EXPECT_EQ(cache.find(Ids{1}), nullptr);
  cache.insert(sequence({1, 2, 3, 4}));
  cache.insert(sequence({1, 2, 5}));
  EXPECT_EQ(found(cache, {1, 2, 3, 9}), (Ids{1, 2, 3}));
  EXPECT_EQ(found(cache, {1, 2, 5, 6, 7}), (Ids{1, 2, 5}));
  EXPECT_EQ(found(cache, {1, 2, 3, 4}), (Ids{1, 2, 3})) << "the last one gives the logits";
  EXPECT_EQ(found(cache, {2, 2}), Ids{});
  EXPECT_EQ(found(cache, {}), Ids{});
}

TEST_F(PrefixCaching, SharedTokensCountOnce) {
  PrefixCache cache(100);
  cache.insert(sequence({1, 2, 3, 4}));
  cache.insert(sequence({1, 2, 3, 4, 5}));
  EXPECT_EQ(cache.tokens(), 5);
  cache.insert(sequence({1, 2, 3}));
  EXPECT_EQ(cache.tokens(), 5);
  cache.insert(sequence({1, 2, 7}));
  EXPECT_EQ(cache.tokens(), 6);
}

TEST_F(PrefixCaching, ForgetsTheLeastRecentlyUsed) {
  PrefixCache cache(6);
  cache.insert(sequence({1, 2, 3}));
  cache.insert(sequence({4, 5, 6}));
  EXPECT_EQ(found(cache, {1, 2, 3, 0}), (Ids{1, 2, 3}));
  cache.insert(sequence({7, 8}));
  EXPECT_EQ(found(cache, {4, 5, 6, 0}), Ids{});
  EXPECT_EQ(found(cache, {1, 2, 3, 0}), (Ids{1, 2, 3}));
  cache.insert(sequence(Ids(7, 1)));
  EXPECT_EQ(cache.tokens(), 5) << "too long to keep at all";
  cache.shrink(0);
  EXPECT_EQ(cache.tokens(), 0);
}

/// Against a plain list of sequences.
TEST_F(PrefixCaching, AgreesWithAPlainList) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    Random random(seed);
    PrefixCache cache(1000);
    std::list<Ids> known;
    const auto draw = [&] {
      Ids ids(1 + random.below(8));
      for (TokenId& id : ids) id = static_cast<TokenId>(random.below(2));
      return ids;
    };
    for (int i = 0; i < 30; ++i) {
      known.push_back(draw());
      cache.insert(sequence(known.back()));
      const Ids asked = draw();
      size_t best = 0;
      for (const Ids& ids : known) {
        const size_t common =
            static_cast<size_t>(std::ranges::mismatch(ids, asked).in1 - ids.begin());
        best = std::max(best, std::min(common, asked.size() - 1));
      }
      EXPECT_EQ(found(cache, asked), Ids(asked.begin(), asked.begin() + best));
    }
    for (int64_t keep = cache.tokens(); keep > 0; --keep) {
      cache.shrink(keep);
      EXPECT_LE(cache.tokens(), keep);
    }
  }
}

}  // namespace
}  // namespace cadre::engine
