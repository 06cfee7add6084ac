#include "cadre/routing/routing.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using testing::Pair;
using testing::rows;

torch::Tensor ids(std::vector<int64_t> values, int64_t k) {
  return torch::tensor(values, torch::kInt64).view({-1, k});
}

TEST(RoutingFromDense, KeepsEveryPairInOrder) {
  const auto weights = torch::tensor({0.5, 0.25, 0.75, 0.125}, torch::kFloat32).view({2, 2});
  const Routing routing = routing_from_dense(3, ids({2, 0, 1, 2}, 2), weights);
  testing::expect_well_formed(routing);
  EXPECT_EQ(rows(routing),
            (std::vector<std::vector<Pair>>{{{2, 0.5F}, {0, 0.25F}}, {{1, 0.75F}, {2, 0.125F}}}));
  EXPECT_TRUE(torch::equal(routing.load(), torch::tensor({1, 1, 2}, torch::kInt64)));
}

TEST(RoutingFromDense, NullExpertsAreCountedNotStored) {
  const Routing routing = routing_from_dense(2, ids({0, 2, 3, 2, 1, 0}, 2), torch::ones({3, 2}));
  testing::expect_well_formed(routing);
  EXPECT_EQ(rows(routing),
            (std::vector<std::vector<Pair>>{{{0, 1.0F}}, {}, {{1, 1.0F}, {0, 1.0F}}}));
  EXPECT_EQ(routing.null, 3);
}

TEST(RoutingFromDense, PaddingHasEmptyRowsAndCountsNoNulls) {
  const auto valid = torch::tensor({true, false, true});
  const Routing routing =
      routing_from_dense(2, ids({0, 1, 0, 5, 1, 0}, 2), torch::ones({3, 2}), valid);
  EXPECT_EQ(rows(routing)[1].size(), 0);
  EXPECT_EQ(routing.pairs(), 4);
  EXPECT_EQ(routing.valid_tokens(), 2);
  EXPECT_EQ(routing.null, 0);
}

TEST(RoutingFromDense, GradientReachesStoredWeightsOnly) {
  auto weights = torch::full({2, 2}, 0.5).requires_grad_();
  const auto valid = torch::tensor({true, false});
  routing_from_dense(2, ids({0, 2, 0, 1}, 2), weights, valid).weight.sum().backward();
  const auto expected = torch::tensor({1.0, 0.0, 0.0, 0.0}, torch::kFloat32).view({2, 2});
  EXPECT_TRUE(torch::equal(weights.grad(), expected));
}

TEST(RoutingFromDense, EmptyBatch) {
  const Routing routing =
      routing_from_dense(4, torch::zeros({0, 2}, torch::kInt64), torch::zeros({0, 2}));
  testing::expect_well_formed(routing);
  EXPECT_EQ(routing.tokens(), 0);
}

TEST(RoutingFromDense, RefusesWhatDoesNotFit) {
  EXPECT_THROW(routing_from_dense(2, ids({0, -1}, 2), torch::ones({1, 2})), UsageError);
  EXPECT_THROW(routing_from_dense(2, ids({0, 1}, 2), torch::ones({2, 1})), UsageError);
  EXPECT_THROW(
      routing_from_dense(2, ids({0, 1}, 2), torch::ones({1, 2}), torch::tensor({true, true})),
      UsageError);
}

TEST(RoutingStats, ClosedForms) {
  const auto valid = torch::tensor({true, true, true, false});
  Routing routing =
      routing_from_dense(4, ids({0, 1, 0, 4, 4, 4, 2, 3}, 2), torch::ones({4, 2}), valid);
  // Scores that do not sum to one, as sigmoids do: uniform, uniform, certain; padding is ignored.
  routing.probs = torch::full({4, 4}, 0.5);
  routing.probs[2] = torch::tensor({0.0, 0.0, 0.7, 0.0});
  routing.probs[3].fill_(NAN);
  const RoutingStats stats = stats_of(routing);
  EXPECT_NEAR(stats.load[0], 2.0 / 3, 1e-12);
  EXPECT_NEAR(stats.load[1], 1.0 / 3, 1e-12);
  EXPECT_EQ(stats.load[2] + stats.load[3], 0);
  EXPECT_NEAR(stats.mean_k, 1.0, 1e-12);
  EXPECT_NEAR(stats.share_empty, 1.0 / 3, 1e-12);
  EXPECT_NEAR(stats.entropy, 2.0 / 3 * std::log(4.0), 1e-6);
  EXPECT_NEAR(stats.max_over_mean_load, 4 * 2.0 / 3, 1e-12);
  EXPECT_EQ(stats.null, 3);
}

TEST(RoutingStats, EmptyBatchGivesZeros) {
  Routing routing =
      routing_from_dense(2, torch::zeros({0, 1}, torch::kInt64), torch::zeros({0, 1}));
  routing.probs = torch::zeros({0, 2});
  const RoutingStats stats = stats_of(routing);
  EXPECT_EQ(stats.load, (std::vector<double>{0, 0}));
  EXPECT_EQ(stats.mean_k, 0);
  EXPECT_EQ(stats.entropy, 0);
}

TEST(Routing, DetachSharesTensorsWithoutGradients) {
  const auto weights = torch::ones({1, 2}).requires_grad_();
  const Routing routing = routing_from_dense(2, ids({0, 1}, 2), weights * 2);
  const Routing copy = routing.detach();
  EXPECT_TRUE(routing.weight.requires_grad());
  EXPECT_FALSE(copy.weight.requires_grad());
  EXPECT_EQ(copy.weight.data_ptr<float>(), routing.weight.data_ptr<float>());
}

}  // namespace
}  // namespace cadre
