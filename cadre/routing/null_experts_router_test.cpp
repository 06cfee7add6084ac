#include "cadre/routing/null_experts_router.h"

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"
#include "cadre/routing/top_k_router.h"

namespace cadre {
namespace {

using namespace testing;

NullExpertsRouter random_router(int64_t hidden, int64_t experts, const NullExperts& options) {
  NullExpertsRouter router(hidden, experts, options);
  randomize(router);
  return router;
}

TEST(NullExpertsRouter, HasTheCommonProperties) {
  for (const NullNorm norm : {NullNorm::kTrueOnly, NullNorm::kAllSlots}) {
    const NullExperts options = {.nulls = 5, .k = 4, .norm = norm};
    NullExpertsRouter router = random_router(6, 7, options);
    const RouteInput input = random_input(15, 6);
    expect_well_formed(router.route(input));
    expect_token_equivariant(router, input);
    expect_batch_invariant(router, input);
    expect_routes_nothing(router, input);
    expect_ignores_padding(router, input);
    expect_weight_gradient(router, input, router.weight);
    NullExpertsRouter other(6, 7, options);
    expect_survives_saving(router, other, input);
  }
}

TEST(NullExpertsRouter, WeightsSumOverTrueExpertsOrAllSlots) {
  const RouteInput input = random_input(40, 6);
  bool some_shorter = false;
  NullExpertsRouter own = random_router(6, 4, {.nulls = 4, .k = 3});
  NullExpertsRouter all = random_router(6, 4, {.nulls = 4, .k = 3, .norm = NullNorm::kAllSlots});
  const auto own_rows = rows(own.route(input)), all_rows = rows(all.route(input));
  for (size_t t = 0; t < own_rows.size(); ++t) {
    double own_sum = 0, all_sum = 0;
    for (const Pair& pair : own_rows[t]) own_sum += pair.weight;
    for (const Pair& pair : all_rows[t]) all_sum += pair.weight;
    const auto size = own_rows[t].size();
    EXPECT_EQ(size, all_rows[t].size());
    EXPECT_NEAR(own_sum, size > 0 ? 1 : 0, 1e-6);
    if (size > 0 && size < 3) {
      EXPECT_LT(all_sum, 1 - 1e-6);
    }
    some_shorter |= size < 3;
  }
  EXPECT_TRUE(some_shorter);
}

TEST(NullExpertsRouter, SlotsAreTrueOrNull) {
  NullExpertsRouter router = random_router(6, 4, {.nulls = 6, .k = 5});
  const Routing routing = router.route(random_input(30, 6));
  EXPECT_EQ(routing.pairs() + routing.null, 30 * 5);
  EXPECT_EQ(routing.probs.size(1), 10);
}

TEST(NullExpertsRouter, WithoutNullsIsNormalisedTopK) {
  NullExpertsRouter router = random_router(6, 8, {.nulls = 0, .k = 3});
  TopKRouter plain(6, 8, {.k = 3, .weights = Weights::kNormalized});
  {
    const torch::NoGradGuard no_grad;
    plain.weight.copy_(router.weight);
  }
  const RouteInput input = random_input(11, 6);
  expect_same_rows(rows(router.route(input)), rows(plain.route(input)));
}

TEST(NullExpertsRouter, TwinsInTwiceTheSlotsRouteAsBefore) {
  NullExpertsRouter router = random_router(6, 8, {.nulls = 8, .k = 4});
  router.tile_nulls();
  TopKRouter before(6, 8, {.k = 2, .weights = Weights::kNormalized});
  {
    const torch::NoGradGuard no_grad;
    before.weight.copy_(router.weight);
  }
  const RouteInput input = random_input(25, 6);
  expect_same_rows(rows(router.route(input)), rows(before.route(input)));
}

TEST(NullExpertsRouter, ATokenMayHaveNoExpertAndGradientsStayFinite) {
  NullExpertsRouter router(4, 3, {.nulls = 3, .k = 2});
  {
    const torch::NoGradGuard no_grad;
    router.weight.zero_();
    router.null_weight.fill_(1);
  }
  const Routing routing = router.route({.hidden = torch::ones({5, 4})});
  EXPECT_EQ(routing.pairs(), 0);
  EXPECT_EQ(routing.null, 10);
  EXPECT_EQ(stats_of(routing).share_empty, 1);
  (routing.weight.sum() + routing.probs.square().sum()).backward();
  EXPECT_TRUE(router.weight.grad().isfinite().all().item<bool>());
}

TEST(NullExpertsRouter, BadOptionsAreNamed) {
  EXPECT_THROW(NullExpertsRouter(4, 4, {.nulls = -1}), UsageError);
  EXPECT_THROW(NullExpertsRouter(4, 4, {.nulls = 1 << 16}), UsageError);
  EXPECT_THROW(NullExpertsRouter(4, 4, {.nulls = 2, .k = 7}), UsageError);
  EXPECT_THROW(NullExpertsRouter(4, 4, {.nulls = 2, .k = 0}), UsageError);
}

}  // namespace
}  // namespace cadre
