#include "cadre/routing/expert_choice_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;
using testing::random_input;

constexpr int64_t kHidden = 8, kExperts = 4;

std::shared_ptr<ExpertChoiceRouter> make_router(const ExpertChoice& options = {}) {
  auto router = std::make_shared<ExpertChoiceRouter>(kHidden, kExperts, options);
  testing::randomize(*router);
  return router;
}

TEST(ExpertChoice, CapacityIsAMultipleOfFourWithinTheTokens) {
  EXPECT_EQ(choice_capacity(2, 64, 4), 32);
  EXPECT_EQ(choice_capacity(1, 50, 4), 16);  // 12.5, up to 16
  EXPECT_EQ(choice_capacity(1, 3, 4), 3);
  EXPECT_EQ(choice_capacity(9, 10, 4), 10);
  EXPECT_EQ(choice_capacity(2, 0, 4), 0);
}

TEST(ExpertChoice, EveryExpertTakesEquallyManyAndItsBest) {
  const auto router = make_router({.capacity_factor = 1});
  const Routing routing = router->route(random_input(32, kHidden));
  testing::expect_well_formed(routing);
  EXPECT_TRUE((routing.load() == 8).all().item<bool>());
  const auto chosen = testing::selection(routing);
  for (int64_t e = 0; e < kExperts; ++e) {
    const auto score = routing.probs.select(1, e), taken = chosen.select(1, e);
    EXPECT_GT(score.index({taken}).min().item<float>(),
              score.index({taken.logical_not()}).max().item<float>());
  }
}

TEST(ExpertChoice, WeightsAreTheProbabilities) {
  const auto router = make_router();
  const Routing routing = router->route(random_input(16, kHidden));
  const auto dense = routing.probs * testing::selection(routing);
  EXPECT_NEAR(routing.weight.sum().item<float>(), dense.sum().item<float>(), 1e-5);
}

TEST(ExpertChoice, SequencesDoNotCompeteInTheirScope) {
  const auto router = make_router({.capacity_factor = 1, .scope = ChoiceScope::kSequence});
  RouteInput input = random_input(32, kHidden);
  input.sequence = torch::arange(2).repeat_interleave(16);
  const auto together = testing::rows(router->route(input));
  for (const int64_t begin : {0, 16}) {
    const RouteInput alone{.hidden = input.hidden.narrow(0, begin, 16)};
    testing::expect_same_rows({together.begin() + begin, together.begin() + begin + 16},
                              testing::rows(router->route(alone)));
  }
}

TEST(ExpertChoice, NoiseInTrainingOnlyAndByStep) {
  const auto router = make_router({.noise = 50});
  RouteInput input = random_input(32, kHidden);
  const auto quiet = testing::rows(router->route(input));
  testing::expect_same_rows(testing::rows(make_router()->route(input)), quiet);
  input.mode = RouteMode::kTrain;
  testing::expect_deterministic(*router, input);
  const auto first = testing::rows(router->route(input));
  input.step = 1;
  EXPECT_NE(testing::rows(router->route(input)), first);
  EXPECT_NE(first, quiet);
}

TEST(ExpertChoice, Properties) {
  const auto router = make_router();
  const auto input = random_input(40, kHidden);
  testing::expect_token_equivariant(*router, input);
  testing::expect_weight_gradient(*router, random_input(12, kHidden, 5), router->weight);
  testing::expect_routes_nothing(*router, input);
  testing::expect_ignores_padding(*router, input);
  testing::expect_survives_saving(
      *router, *std::make_shared<ExpertChoiceRouter>(kHidden, kExperts, ExpertChoice{}), input);
  EXPECT_FALSE(router->causal());
  EXPECT_FALSE(router->batch_invariant());
}

TEST(ExpertChoice, OneExpertTakesAllAndOneToken) {
  ExpertChoiceRouter one(kHidden, 1, {.capacity_factor = 1});
  EXPECT_EQ(one.route(random_input(7, kHidden)).pairs(), 7);
  EXPECT_EQ(make_router()->route(random_input(1, kHidden)).pairs(), kExperts);
}

TEST(ExpertChoice, RefusesInOneLine) {
  EXPECT_THROW(ExpertChoiceRouter(kHidden, 0, {}), UsageError);
  EXPECT_THROW(ExpertChoiceRouter(kHidden, 4, {.capacity_factor = 0}), UsageError);
  EXPECT_THROW(ExpertChoiceRouter(kHidden, 4, {.noise = -1}), UsageError);
  RouteInput input = random_input(4, kHidden);
  input.hidden[2][1] = NAN;
  input.layer = 5;
  try {
    make_router()->route(input);
    FAIL() << "NaN was routed";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("layer 5"));
  }
  EXPECT_THROW(make_router()->route(random_input(4, kHidden + 1)), UsageError);
}

}  // namespace
}  // namespace cadre
