#include "cadre/reshape/expert_groups.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

using ::testing::DoubleEq;
using ::testing::ElementsAre;

std::vector<double> random_shares(size_t n, uint64_t seed) {
  Random random(seed);
  std::vector<double> shares(n);
  double total = 0;
  for (double& share : shares) total += share = random.uniform();
  for (double& share : shares) share /= total;
  return shares;
}

std::vector<double> random_similarity(size_t n, uint64_t seed) {
  Random random(seed, {1});
  std::vector<double> similarity(n * n);
  for (double& s : similarity) s = random.uniform();
  return similarity;
}

TEST(ExpertGroups, TheMostUsedAreCentresAndOthersJoinTheirLike) {
  // 1 and 3 lead; 0 is like 3, 2 like 1.
  const std::vector<double> usage = {0.1, 0.4, 0.2, 0.3};
  std::vector<double> similarity(16, 0.1);
  similarity[0 * 4 + 3] = 0.9;
  similarity[2 * 4 + 1] = 0.9;
  const ExpertGroups groups = group_by_similarity(usage, similarity, 2);
  EXPECT_THAT(groups.dominant, ElementsAre(1, 3));
  EXPECT_THAT(groups.group_of, ElementsAre(1, 0, 0, 1));
  EXPECT_THAT(members_of(groups, 1), ElementsAre(0, 3));
}

TEST(ExpertGroups, CentresWithHighIndicesStay) {
  // The released code overwrote dominants whose index lay beyond the number of groups.
  const std::vector<double> usage = {0.05, 0.05, 0.45, 0.45};
  const ExpertGroups groups = group_by_similarity(usage, std::vector<double>(16, 0.5), 2);
  EXPECT_THAT(groups.dominant, ElementsAre(2, 3));
}

TEST(ExpertGroups, PropertiesHoldForRandomLayers) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const size_t n = 1 + seed % 13;
    const auto usage = random_shares(n, seed);
    const auto similarity = random_similarity(n, seed);
    for (int64_t m = 1; m <= static_cast<int64_t>(n); ++m) {
      const int64_t capacity = (static_cast<int64_t>(n) + m - 1) / m;
      for (const auto& groups :
           {group_by_similarity(usage, similarity, m), group_at_random(usage, m, seed),
            group_by_similarity(usage, similarity, m, capacity)}) {
        ASSERT_EQ(groups.groups(), m);
        for (int64_t g = 0; g < m; ++g) {
          const auto members = members_of(groups, g);
          ASSERT_FALSE(members.empty());
          const auto most = *std::max_element(members.begin(), members.end(), [&](auto a, auto b) {
            return usage[static_cast<size_t>(a)] < usage[static_cast<size_t>(b)];
          });
          EXPECT_EQ(groups.dominant[static_cast<size_t>(g)], most);
        }
      }
      const auto bounded = group_by_similarity(usage, similarity, m, capacity);
      for (int64_t g = 0; g < m; ++g) {
        EXPECT_LE(static_cast<int64_t>(members_of(bounded, g).size()), capacity);
      }
    }
    const ExpertGroups all = group_by_similarity(usage, similarity, static_cast<int64_t>(n));
    for (size_t e = 0; e < n; ++e) EXPECT_EQ(all.group_of[e], static_cast<int32_t>(e));
  }
}

TEST(ExpertGroups, AdaptiveBudgetGivesEvenLayersMore) {
  const std::vector<std::vector<double>> usage = {{0.97, 0.01, 0.01, 0.01},
                                                  {0.26, 0.25, 0.25, 0.24}};
  EXPECT_THAT(group_counts(usage, 2, GroupBudget::kAdaptive), ElementsAre(1, 3));
  EXPECT_THAT(group_counts(usage, 2, GroupBudget::kUniform), ElementsAre(2, 2));
  EXPECT_THAT(group_counts(usage, 4, GroupBudget::kAdaptive), ElementsAre(4, 4));
}

TEST(ExpertGroups, AdaptiveBudgetIsKept) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    std::vector<std::vector<double>> usage;
    for (uint64_t l = 0; l < 5; ++l) usage.push_back(random_shares(8, seed * 5 + l));
    for (int64_t average = 1; average <= 8; ++average) {
      const auto counts = group_counts(usage, average, GroupBudget::kAdaptive);
      EXPECT_LE(std::accumulate(counts.begin(), counts.end(), int64_t{0}), 5 * average);
      for (const int64_t count : counts) EXPECT_TRUE(count >= 1 && count <= 8);
    }
  }
}

TEST(ExpertGroups, SimilarityIsTheCosine) {
  // Columns (1, 0), (0, 2), (3, 0), (0, 0): Gram of X^T X.
  const std::vector<double> gram = {1, 0, 3, 0, 0, 4, 0, 0, 3, 0, 9, 0, 0, 0, 0, 0};
  const auto similarity = similarity_of_gram(4, gram);
  EXPECT_DOUBLE_EQ(similarity[0 * 4 + 2], 1);
  EXPECT_DOUBLE_EQ(similarity[0 * 4 + 1], 0.5);
  EXPECT_DOUBLE_EQ(similarity[3 * 4 + 3], 1);
  EXPECT_DOUBLE_EQ(similarity[3 * 4 + 0], 0.5);
}

TEST(ExpertGroups, WeightsSumToOneAndNeverUsedGroupsAreAveraged) {
  const std::vector<double> usage = {0.3, 0.1, 0, 0, 0.6};
  const std::vector<int32_t> members = {0, 1}, idle = {2, 3};
  EXPECT_THAT(member_weights(usage, members, MemberWeights::kUsage),
              ElementsAre(DoubleEq(0.75), DoubleEq(0.25)));
  EXPECT_THAT(member_weights(usage, members, MemberWeights::kUniform), ElementsAre(0.5, 0.5));
  EXPECT_THAT(member_weights(usage, members, MemberWeights::kReversed),
              ElementsAre(DoubleEq(0.7 / 1.6), DoubleEq(0.9 / 1.6)));
  EXPECT_THAT(member_weights(usage, members, MemberWeights::kDominant), ElementsAre(1, 0));
  EXPECT_THAT(member_weights(usage, idle, MemberWeights::kUsage), ElementsAre(0.5, 0.5));
  EXPECT_EQ(member_weights_named("usage"), MemberWeights::kUsage);
  EXPECT_THROW(member_weights_named("usual"), UsageError);
}

TEST(ExpertGroups, ImpossibleNumbersAreRefused) {
  const std::vector<double> usage = {0.5, 0.5}, similarity(4, 0.5);
  EXPECT_THROW(group_by_similarity(usage, similarity, 0), UsageError);
  EXPECT_THROW(group_by_similarity(usage, similarity, 3), UsageError);
  EXPECT_THROW(group_by_similarity(usage, similarity, 1, 1), UsageError);
}

}  // namespace
}  // namespace cadre::reshape
