#include "cadre/routing/expert_side.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using testing::Pair;
using testing::random_tensor;
using testing::rows;

int64_t two(int64_t) { return 2; }

TEST(GroupBySequence, RisingIdsWithoutPadding) {
  const auto sequence = torch::tensor({7, 2, 7, 2, 9}, torch::kInt64);
  const auto valid = torch::tensor({1, 1, 1, 0, 0}, torch::kBool);
  EXPECT_EQ(group_by_sequence(5, sequence, {}), (TokenGroups{{1, 3}, {0, 2}, {4}}));
  EXPECT_EQ(group_by_sequence(5, sequence, valid), (TokenGroups{{1}, {0, 2}}));
  EXPECT_EQ(group_by_sequence(2, {}, {}), (TokenGroups{{0, 1}}));
  EXPECT_EQ(group_by_sequence(0, {}, {}), TokenGroups{});
  EXPECT_THROW(group_by_sequence(4, sequence, {}), UsageError);
}

TEST(TakeBest, EveryExpertTakesItsBestTokensTiesToTheLower) {
  const auto scores = torch::tensor({{.1, .9}, {.3, .9}, {.3, .9}, {.3, .0}}, torch::kFloat32);
  const auto taken = take_best(scores, {{0, 1, 2, 3}}, two);
  EXPECT_TRUE(torch::equal(
      taken, torch::tensor({{0, 1}, {1, 1}, {1, 0}, {0, 0}}, torch::kInt64).to(torch::kBool)));
}

TEST(TakeBest, GroupsDoNotCompete) {
  const auto scores = random_tensor({12, 5}, 1);
  const TokenGroups groups = {{0, 3, 4, 9}, {1, 2}, {5, 6, 7, 8, 10}};
  const auto taken = take_best(scores, groups, two);
  for (const auto& group : groups) {
    const auto index = torch::tensor(group);
    const auto alone =
        take_best(scores.index_select(0, index), group_by_sequence(index.numel(), {}, {}), two);
    EXPECT_TRUE(torch::equal(taken.index_select(0, index), alone));
    EXPECT_TRUE((alone.sum(0) == 2).all().item<bool>());
  }
  EXPECT_FALSE(taken[11].any().item<bool>()) << "token 11 is in no group";
}

TEST(TakeBest, CapacityBeyondTheGroupTakesAllAndNoneIsFine) {
  const auto scores = random_tensor({3, 2}, 1);
  EXPECT_TRUE(take_best(scores, {{0, 1, 2}}, [](int64_t) { return 9; }).all().item<bool>());
  EXPECT_FALSE(take_best(scores, {{0, 1, 2}}, [](int64_t) { return 0; }).any().item<bool>());
  EXPECT_EQ(take_best(torch::empty({0, 2}), {}, two).size(0), 0);
}

TEST(RoutingFromMask, PairsInFallingOrderOfScore) {
  const auto selected =
      torch::tensor({{1, 1, 1}, {0, 0, 0}, {1, 0, 1}, {1, 1, 0}}).to(torch::kBool);
  const auto scores =
      torch::tensor({{.1, .3, .2}, {.5, .5, .5}, {.4, .9, .4}, {.1, .2, .3}}, torch::kFloat32);
  const auto valid = torch::tensor({1, 1, 1, 0}).to(torch::kBool);
  const Routing routing = routing_from_mask(selected, scores, scores * 2, valid);
  testing::expect_well_formed(routing);
  const std::vector<std::vector<Pair>> expected = {
      {{1, .6F}, {2, .4F}, {0, .2F}}, {}, {{0, .8F}, {2, .8F}}, {}};
  EXPECT_EQ(rows(routing), expected);
}

TEST(RoutingFromMask, GradientReachesTheSelectedOnly) {
  const auto selected = torch::tensor({{1, 0}, {0, 1}}).to(torch::kBool);
  const auto weights = torch::ones({2, 2}).requires_grad_();
  routing_from_mask(selected, weights, weights, {}).weight.sum().backward();
  EXPECT_TRUE(torch::equal(weights.grad(), selected.to(torch::kFloat32)));
  EXPECT_THROW(routing_from_mask(selected, weights, torch::ones({2, 3}), {}), UsageError);
}

}  // namespace
}  // namespace cadre
