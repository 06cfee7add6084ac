#include "cadre/routing/noisy_top_k_router.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/routing/router_noise.h"
#include "cadre/routing/router_test_kit.h"
#include "cadre/routing/top_k_router.h"

namespace cadre {
namespace {

using testing::random_input;
using testing::rows;

constexpr int64_t kHidden = 8, kExperts = 6;

std::shared_ptr<NoisyTopKRouter> make_router(const NoisyTopK& options) {
  auto router = std::make_shared<NoisyTopKRouter>(kHidden, kExperts, options);
  testing::randomize(*router);
  return router;
}

class NoisyTopKProperties : public ::testing::TestWithParam<RouterNoise> {
 protected:
  NoisyTopK options() const { return {.k = 2, .noise = GetParam()}; }
};
INSTANTIATE_TEST_SUITE_P(Both, NoisyTopKProperties,
                         ::testing::Values(RouterNoise::kLearned, RouterNoise::kFixed));

TEST_P(NoisyTopKProperties, HaveThemAll) {
  const auto router = make_router(options());
  const auto input = random_input(23, kHidden);
  testing::expect_well_formed(router->route(input));
  testing::expect_token_equivariant(*router, input);
  testing::expect_batch_invariant(*router, random_input(5, kHidden));
  testing::expect_weight_gradient(*router, random_input(9, kHidden), router->weight);
  testing::expect_routes_nothing(*router, input);
  testing::expect_ignores_padding(*router, input);
  testing::expect_survives_saving(
      *router, *std::make_shared<NoisyTopKRouter>(kHidden, kExperts, options()), input);
}

TEST_P(NoisyTopKProperties, TrainingDrawsByStepLayerAndDraw) {
  const auto router = make_router(options());
  RouteInput input = random_input(40, kHidden);
  const auto quiet = rows(router->route(input));
  input.mode = RouteMode::kTrain;
  testing::expect_deterministic(*router, input);
  const auto noisy = rows(router->route(input));
  EXPECT_NE(noisy, quiet);
  for (int64_t* key : {&input.step, &input.layer, &input.draw}) {
    ++*key;
    EXPECT_NE(rows(router->route(input)), noisy);
    --*key;
  }
  input.seed = 9;
  EXPECT_NE(rows(router->route(input)), noisy);
}

TEST(NoisyTopK, WithoutNoiseItIsTopK) {
  const auto input = random_input(20, kHidden);
  const auto fixed = make_router({.k = 2, .noise = RouterNoise::kFixed});
  TopKRouter plain(kHidden, kExperts, {.k = 2});
  TopKRouter normalized(kHidden, kExperts, {.k = 2, .weights = Weights::kNormalized});
  torch::NoGradGuard no_grad;
  plain.weight.copy_(fixed->weight);
  normalized.weight.copy_(fixed->weight);
  testing::expect_same_rows(rows(fixed->route(input)), rows(plain.route(input)));
  const auto learned = make_router({.k = 2, .noise = RouterNoise::kLearned});
  testing::expect_same_rows(rows(learned->route(input)), rows(normalized.route(input)));
}

TEST(NoisyTopK, LearnedNoiseHasAGradient) {
  const auto router = make_router({.k = 2, .noise = RouterNoise::kLearned});
  RouteInput input = random_input(9, kHidden);
  input.mode = RouteMode::kTrain;
  testing::expect_weight_gradient(*router, input, router->noise_weight);
}

TEST(RouterNoise, IsStandardNormalAndNoPrefixChanges) {
  const auto noise = router_noise(random_input(2000, 1), 10);
  EXPECT_NEAR(noise.mean().item<float>(), 0, 0.03);
  EXPECT_NEAR(noise.std().item<float>(), 1, 0.03);
  EXPECT_TRUE(torch::equal(router_noise(random_input(7, 1), 10), noise.narrow(0, 0, 7)));
}

TEST(NoisyTopK, DegenerateSizes) {
  NoisyTopKRouter one(kHidden, 1, {.k = 1});
  EXPECT_EQ(one.route(random_input(3, kHidden)).pairs(), 3);
  const auto router = make_router({.k = kExperts});
  RouteInput input = random_input(3, kHidden);
  EXPECT_EQ(router->route(input).pairs(), 3 * kExperts);
  input.knobs.k = 1;
  EXPECT_EQ(router->route(input).pairs(), 3);
}

TEST(NoisyTopK, RefusesInOneLine) {
  EXPECT_THROW(NoisyTopKRouter(kHidden, 0, {}), UsageError);
  EXPECT_THROW(NoisyTopKRouter(kHidden, 4, {.k = 0}), UsageError);
  EXPECT_THROW(NoisyTopKRouter(kHidden, 4, {.k = 5}), UsageError);
  EXPECT_THROW(NoisyTopKRouter(kHidden, 4, {.scale = -1}), UsageError);
  RouteInput input = random_input(3, kHidden);
  input.knobs.k = kExperts + 1;
  EXPECT_THROW(make_router({})->route(input), UsageError);
}

}  // namespace
}  // namespace cadre
