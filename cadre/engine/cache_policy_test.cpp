#include "cadre/engine/cache_policy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"

namespace cadre::engine {
namespace {

constexpr ExpertGrid kGrid = {.layers = 4, .experts = 3};

TEST(ExpertGrid, DistanceIsThatOfTheCycle) {
  EXPECT_EQ(kGrid.distance(1, kGrid.id(2, 0)), 1);
  EXPECT_EQ(kGrid.distance(1, kGrid.id(0, 2)), 3);
  EXPECT_EQ(kGrid.distance(1, kGrid.id(1, 1)), 4);
  EXPECT_EQ(kGrid.layer_of(kGrid.id(3, 2)), 3);
  EXPECT_EQ(kGrid.expert_of(kGrid.id(3, 2)), 2);
}

TEST(ScorePolicy, IsTheFormula) {
  const auto policy = make_cache_policy("score", {.grid = kGrid});
  policy->reach(0, 1);
  policy->use(kGrid.id(1, 0), 1);
  policy->reach(8, 1);
  policy->use(kGrid.id(1, 0), 1);
  policy->reach(12, 3);
  // f = 1 * 2^-(8/8) + 1 = 1.5, four passes old; layer 1 is two layers away.
  EXPECT_NEAR(policy->keep(kGrid.id(1, 0)), 1.5 * std::exp2(-0.5) + 0.3 * (1 - 2.0 / 4), 1e-6);
  EXPECT_NEAR(policy->keep(kGrid.id(3, 1)), 0, 1e-12);
  EXPECT_NEAR(policy->keep(kGrid.id(0, 1)), 0.3 * 0.75, 1e-12);
  EXPECT_NEAR(policy->keep_guess(kGrid.id(0, 1), 0.5), 0.3 * 0.75 + 0.5, 1e-12);
}

TEST(ScorePolicy, PriorFadesLikeUses) {
  std::vector<float> prior(kGrid.size(), 0.0F);
  prior[kGrid.id(2, 1)] = 4;
  const auto policy = make_cache_policy("score", {.grid = kGrid, .prior = prior});
  policy->reach(16, 2);
  EXPECT_NEAR(policy->keep(kGrid.id(2, 1)), 1, 1e-6);
  policy->reach(100000, 2);
  EXPECT_EQ(policy->keep(kGrid.id(2, 1)), 0);
}

TEST(PlecPolicy, ForecastOfLayersToComeStaysNearerFirst) {
  const auto policy = make_cache_policy("plec", {.grid = kGrid});
  const std::vector<int64_t> expected = {kGrid.id(0, 0), kGrid.id(2, 0), kGrid.id(3, 0)};
  policy->forecast(expected);
  policy->reach(0, 1);
  for (int i = 0; i < 100; ++i) policy->use(kGrid.id(1, 2), 1);
  EXPECT_GT(policy->keep(kGrid.id(2, 0)), policy->keep(kGrid.id(3, 0)));
  EXPECT_GT(policy->keep(kGrid.id(3, 0)), policy->keep(kGrid.id(1, 2)));
  EXPECT_LT(policy->keep(kGrid.id(0, 0)), 1) << "its layer has passed";
}

TEST(LruAndLfu, KeepWhatTheirNamesSay) {
  const auto lru = make_cache_policy("lru", {.grid = kGrid});
  const auto lfu = make_cache_policy("lfu", {.grid = kGrid});
  for (CachePolicy* policy : {lru.get(), lfu.get()}) {
    policy->reach(0, 0);
    policy->use(0, 1);
    policy->use(0, 1);
    policy->reach(1, 0);
    policy->use(1, 1);
  }
  EXPECT_LT(lru->keep(0), lru->keep(1));
  EXPECT_GT(lfu->keep(0), lfu->keep(1));
}

TEST(CachePolicies, AreFoundByNameAndExplained) {
  for (const PolicyEntry& entry : cache_policies()) EXPECT_FALSE(entry.help.empty());
  EXPECT_THROW(make_cache_policy("fifo", {.grid = kGrid}), UsageError);
  EXPECT_THROW(make_cache_policy("belady", {.grid = kGrid}), UsageError);
}

}  // namespace
}  // namespace cadre::engine
