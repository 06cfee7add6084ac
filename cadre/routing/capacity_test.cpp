#include "cadre/routing/capacity.h"

#include <gtest/gtest.h>

#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using testing::Pair;
using testing::rows;
using Rows = std::vector<std::vector<Pair>>;

/// Three tokens that all want expert 0 first, with rising scores, and expert 1 second.
Routing crowded(const torch::Tensor& weights) {
  const auto ids = torch::tensor({0, 1, 0, 1, 0, 1}, torch::kInt32).view({3, 2});
  Routing routing = routing_from_dense(2, ids, weights);
  routing.probs = torch::tensor({0.6, 0.4, 0.7, 0.3, 0.8, 0.2}, torch::kFloat32).view({3, 2});
  return routing;
}

TEST(Capacity, RoundsUp) {
  EXPECT_EQ(expert_capacity(1.0, 2, 8, 4), 4);
  EXPECT_EQ(expert_capacity(1.25, 2, 8, 4), 5);
  EXPECT_EQ(expert_capacity(1.0, 1, 9, 4), 3);
  EXPECT_EQ(expert_capacity(1.0, 1, 0, 4), 0);
}

TEST(Capacity, PositionDropsLaterTokens) {
  const Routing routing = drop_over_capacity(crowded(torch::ones({3, 2})), 2, DropOrder::kPosition);
  testing::expect_well_formed(routing);
  EXPECT_EQ(rows(routing), (Rows{{{0, 1}, {1, 1}}, {{0, 1}, {1, 1}}, {}}));
  EXPECT_EQ(routing.dropped, 2);
}

TEST(Capacity, ScoreDropsLowerScores) {
  const Routing routing = drop_over_capacity(crowded(torch::ones({3, 2})), 1, DropOrder::kScore);
  testing::expect_well_formed(routing);
  EXPECT_EQ(rows(routing), (Rows{{{1, 1}}, {}, {{0, 1}}}));
  EXPECT_EQ(routing.dropped, 4);
}

TEST(Capacity, EqualScoresDropLaterTokens) {
  Routing routing = crowded(torch::ones({3, 2}));
  routing.probs.fill_(0.5);
  EXPECT_EQ(rows(drop_over_capacity(routing, 1, DropOrder::kScore)),
            (Rows{{{0, 1}, {1, 1}}, {}, {}}));
}

TEST(Capacity, LargeEnoughChangesNothing) {
  const Routing routing = crowded(torch::ones({3, 2}));
  const Routing kept = drop_over_capacity(routing, 3, DropOrder::kScore);
  EXPECT_EQ(rows(kept), rows(routing));
  EXPECT_EQ(kept.dropped, 0);
}

TEST(Capacity, DroppedPairsHaveNoGradient) {
  auto weights = torch::ones({3, 2}).requires_grad_();
  drop_over_capacity(crowded(weights), 1, DropOrder::kPosition).weight.sum().backward();
  const auto expected = torch::tensor({1, 1, 0, 0, 0, 0}, torch::kFloat32).view({3, 2});
  EXPECT_TRUE(torch::equal(weights.grad(), expected));
}

}  // namespace
}  // namespace cadre
