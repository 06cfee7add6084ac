#include "cadre/routing/hash_router.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

RouteInput ids(std::vector<int64_t> values) {
  const auto tokens = static_cast<int64_t>(values.size());
  return {.hidden = torch::zeros({tokens, 2}), .token_ids = torch::tensor(values, torch::kInt64)};
}

/// Occurrences that each expert gets.
std::vector<int64_t> load_of(const std::vector<int64_t>& table, const Hash& options,
                             int64_t experts) {
  std::vector<int64_t> load(experts);
  for (size_t id = 0; id < table.size(); ++id) load[table[id]] += options.frequencies[id];
  return load;
}

TEST(BalancedHash, SharesTheTextAlthoughAFewIdsMakeMostOfIt) {
  Hash options{.vocabulary = 1000, .seed = 3};
  for (int64_t id = 0; id < 1000; ++id) options.frequencies.push_back(100000 / (id + 1));
  const auto load = load_of(balanced_hash(8, options), options, 8);
  const auto [least, most] = std::minmax_element(load.begin(), load.end());
  // The most frequent id alone weighs 100,000, more than an eighth of 748,000; the rest is even.
  EXPECT_EQ(*most, 100000);
  EXPECT_GT(*least, 90000);
}

TEST(BalancedHash, WithoutFrequenciesIdsAreDealtOutEvenlyBySeed) {
  const auto first = balanced_hash(4, {.vocabulary = 40, .seed = 1});
  for (int64_t e = 0; e < 4; ++e) EXPECT_EQ(std::count(first.begin(), first.end(), e), 10);
  EXPECT_EQ(balanced_hash(4, {.vocabulary = 40, .seed = 1}), first);
  EXPECT_NE(balanced_hash(4, {.vocabulary = 40, .seed = 2}), first);
}

TEST(BalancedHash, IdsThatNeverOccurAreSharedToo) {
  const auto table = balanced_hash(2, {.vocabulary = 8, .frequencies = {5, 5, 0, 0, 0, 0, 0, 0}});
  EXPECT_EQ(std::count(table.begin(), table.end(), 0), 4);
}

TEST(HashRouter, FollowsItsTableWithWeightOne) {
  HashRouter router(3, {.vocabulary = 9});
  const Routing routing = router.route(ids({4, 4, 8, 0}));
  testing::expect_well_formed(routing);
  const float* table = router.table.data_ptr<float>();
  for (const auto& [t, id] : std::vector<std::pair<int, int>>{{0, 4}, {1, 4}, {2, 8}, {3, 0}}) {
    const std::vector<testing::Pair> expected = {{static_cast<int32_t>(table[id]), 1}};
    EXPECT_EQ(testing::rows(routing)[t], expected);
  }
}

TEST(HashRouter, TableTravelsWithTheCheckpoint) {
  HashRouter from(4, {.vocabulary = 50, .seed = 1}), to(4, {.vocabulary = 50, .seed = 2});
  testing::expect_survives_saving(from, to, ids({1, 2, 3, 30, 49}));
}

TEST(HashRouter, TakesFrequenciesWhenTheyAreKnown) {
  HashRouter router(2, {.vocabulary = 4});
  const Hash counted{.vocabulary = 4, .frequencies = {9, 1, 1, 1}};
  router.assign(counted);
  const auto want = balanced_hash(2, counted);
  for (int64_t id = 0; id < 4; ++id) EXPECT_EQ(router.table[id].item<int64_t>(), want[id]);
  EXPECT_THROW(router.assign({.vocabulary = 5}), UsageError);
}

TEST(HashRouter, DegenerateInputs) {
  HashRouter router(4, {.vocabulary = 5});
  RouteInput input = ids({1, 2, 3});
  testing::expect_routes_nothing(router, input);
  EXPECT_TRUE(router.causal() && router.batch_invariant());
  HashRouter one(1, {.vocabulary = 5});
  EXPECT_EQ(one.route(input).load().item<int64_t>(), 3);
}

TEST(HashRouter, RefusesInOneLine) {
  EXPECT_THROW(HashRouter(0, {.vocabulary = 5}), UsageError);
  EXPECT_THROW(HashRouter(2, {}), UsageError);
  EXPECT_THROW(HashRouter(2, {.vocabulary = 3, .frequencies = {1, 2}}), UsageError);
  EXPECT_THROW(HashRouter(2, {.vocabulary = 2, .frequencies = {1, -2}}), UsageError);
  HashRouter router(2, {.vocabulary = 3});
  EXPECT_THROW(router.route({.hidden = torch::zeros({2, 2})}), UsageError);
  EXPECT_THROW(router.route(ids({0, 3})), UsageError);
}

}  // namespace
}  // namespace cadre
