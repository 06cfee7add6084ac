#include "cadre/routing/patch_choice_router.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using testing::random_input;
using testing::rows;

constexpr int64_t kHidden = 6, kExperts = 4, kLength = 16;

RouteInput sequences(int64_t count, uint64_t seed = 1) {
  RouteInput input = random_input(count * kLength, kHidden, seed);
  input.sequence = torch::arange(count).repeat_interleave(kLength);
  return input;
}

std::shared_ptr<PatchChoiceRouter> make_router(const PatchChoice& options = {}) {
  auto router = std::make_shared<PatchChoiceRouter>(kHidden, kExperts, options);
  testing::randomize(*router);
  return router;
}

/// Pairs of each expert in each sequence, [sequences, E].
torch::Tensor loads(const Routing& routing) {
  return testing::selection(routing).view({-1, kLength, kExperts}).sum(1);
}

TEST(PatchChoice, PaddedListsHoldExactlyCAndPaddingWeighsNothing) {
  const auto input = sequences(3);
  const Routing padded = make_router({.short_lists = ShortLists::kPad})->route(input);
  const Routing dropped = make_router()->route(input);
  testing::expect_well_formed(padded);
  EXPECT_TRUE((loads(padded) == kLength / 2).all().item<bool>());
  EXPECT_TRUE((loads(dropped) <= kLength / 2).all().item<bool>());
  EXPECT_LT(dropped.pairs(), padded.pairs());
  EXPECT_NEAR(padded.weight.sum().item<float>(), dropped.weight.sum().item<float>(), 1e-4);
  EXPECT_GT(dropped.weight.min().item<float>(), 0);
}

TEST(PatchChoice, ExpertsTakeTheBestOfThoseThatKeptThem) {
  const auto router = make_router({.k = 2});
  const Routing routing = router->route(sequences(1));
  const auto chosen = testing::selection(routing), probs = routing.probs.detach();
  const auto rank = probs.argsort(1, true).argsort(1, false);
  const auto kept = rank < 2;
  EXPECT_FALSE(chosen.logical_and(kept.logical_not()).any().item<bool>());
  for (int64_t e = 0; e < kExperts; ++e) {
    const auto score = probs.select(1, e);
    const auto left_out = kept.select(1, e).logical_and(chosen.select(1, e).logical_not());
    if (!left_out.any().item<bool>()) continue;
    EXPECT_GE(score.index({chosen.select(1, e)}).min().item<float>(),
              score.index({left_out}).max().item<float>());
  }
}

TEST(PatchChoice, PatchesGoTogether) {
  const auto router = make_router({.k = kExperts, .patch = 4});
  const auto chosen = testing::selection(router->route(sequences(2))).view({-1, 4, kExperts});
  EXPECT_TRUE(torch::equal(chosen, chosen.select(1, 0).unsqueeze(1).expand_as(chosen)));
  EXPECT_EQ(chosen.sum().item<int64_t>(), 2 * kExperts * kLength / 2);
}

TEST(PatchChoice, AllOfAllIsEveryPair) {
  const auto router = make_router({.k = kExperts, .share = 1});
  EXPECT_EQ(router->route(sequences(2)).pairs(), 2 * kLength * kExperts);
}

TEST(PatchChoice, Properties) {
  const auto router = make_router();
  const auto input = sequences(2);
  testing::expect_deterministic(*router, input);
  testing::expect_weight_gradient(*router, sequences(1, 4), router->weight);
  testing::expect_weight_gradient(*router, sequences(1, 4), router->bias);
  testing::expect_token_equivariant(*router, random_input(10, kHidden));
  testing::expect_routes_nothing(*router, input);
  testing::expect_ignores_padding(*router, input);
  testing::expect_survives_saving(
      *router, *std::make_shared<PatchChoiceRouter>(kHidden, kExperts, PatchChoice{}), input);
  EXPECT_FALSE(router->causal());
}

TEST(PatchChoice, SequencesDoNotCompete) {
  const auto router = make_router();
  const auto input = sequences(3);
  const auto together = rows(router->route(input));
  const RouteInput alone{.hidden = input.hidden.narrow(0, kLength, kLength)};
  testing::expect_same_rows(rows(router->route(alone)),
                            {together.begin() + kLength, together.begin() + 2 * kLength});
}

TEST(PatchChoice, RefusesInOneLine) {
  EXPECT_THROW(PatchChoiceRouter(kHidden, 0, {}), UsageError);
  EXPECT_THROW(PatchChoiceRouter(kHidden, 4, {.k = 5}), UsageError);
  EXPECT_THROW(PatchChoiceRouter(kHidden, 4, {.patch = 0}), UsageError);
  EXPECT_THROW(PatchChoiceRouter(kHidden, 4, {.share = 0}), UsageError);
  EXPECT_THROW(PatchChoiceRouter(kHidden, 4, {.share = 1.5}), UsageError);
  RouteInput input = sequences(1);
  input.knobs.capacity_factor = 2;
  EXPECT_THROW(make_router()->route(input), UsageError);
}

}  // namespace
}  // namespace cadre
