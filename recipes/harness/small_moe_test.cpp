#include "recipes/harness/small_moe.h"

#include <gtest/gtest.h>

#include "cadre/routing/top_k_router.h"
#include "recipes/harness/byte_lm.h"

namespace cadre::recipes {
namespace {

std::shared_ptr<SmallMoe> small_moe(int64_t shared_inner) {
  torch::manual_seed(1);
  const SmallMoeOptions options = {.experts = {.in = 6, .inner = 8, .out = 2, .experts = 4},
                                   .shared_inner = shared_inner,
                                   .objectives = {balance_expert(0.5)}};
  return std::make_shared<SmallMoe>(options, std::make_shared<TopKRouter>(6, 4, TopK{.k = 2}));
}

TEST(SmallMoe, AddsTheSharedNetworkToTheRoutedOnes) {
  const auto moe = small_moe(5);
  const auto x = torch::randn({7, 6});
  const auto y = moe->forward(x);
  EXPECT_TRUE(torch::allclose(y, moe->routed(x, moe->routing) + moe->shared->forward(x)));
  EXPECT_NEAR(moe->aux.item<double>(), 0.5 * expert_balance(moe->routing, {}).item<double>(), 1e-6);
  moe->eval();
  moe->forward(x);
  EXPECT_EQ(moe->aux.item<double>(), 0);
  EXPECT_EQ(small_moe(0)->shared, nullptr);
}

TEST(Fit, TrainsEveryPartAndReturnsTheCurve) {
  const auto moe = small_moe(5);
  const auto x = torch::randn({64, 6}), y = x.narrow(1, 0, 2).square();
  const auto before = moe->experts->up.clone(),
             router_before = moe->router->parameters()[0].clone();
  const Curve curve =
      fit({.label = "test"}, *moe, {.steps = 200, .lr = 1e-2, .curve_points = 10},
          [&](int64_t) { return (moe->forward(x) - y).square().mean() + moe->aux; });
  ASSERT_EQ(curve.y.size(), 10);
  EXPECT_EQ(curve.x.back(), 200);
  EXPECT_LT(curve.y.back(), 0.7 * curve.y.front());
  EXPECT_FALSE(torch::equal(moe->experts->up, before));
  EXPECT_FALSE(torch::equal(moe->router->parameters()[0], router_before));
  EXPECT_FALSE(moe->is_training());
}

TEST(NormalizedError, IsOneForTheMeanAndZeroForTheTruth) {
  const auto y = torch::randn({1000, 3}) * torch::tensor({1.0, 5.0, 0.1});
  EXPECT_NEAR(normalized_error(y.mean(0, true).expand_as(y), y), 1, 1e-5);
  EXPECT_EQ(normalized_error(y, y), 0);
}

TEST(ByteLm, TrainsOnWhatTextIsHere) {
  if (!byte_text_is_here()) GTEST_SKIP() << "no text: install " << kByteTextPackages;
  ModelConfig config = byte_lm_config();
  config.layers = 1;
  config.hidden = 32;
  config.experts = 4;
  config.experts_per_token = 2;
  config.expert_intermediate = 16;
  int64_t steps = 0;
  const ByteLm lm = train_byte_lm({.label = "test"}, config,
                                  {.steps = 20,
                                   .batch = 4,
                                   .length = 32,
                                   .lr = 1e-2,
                                   .bytes_per_domain = 200'000,
                                   .validation_sequences = 2},
                                  [&](LanguageModel&, int64_t) { ++steps; });
  EXPECT_EQ(steps, 20);
  EXPECT_EQ(lm.measured.curves.at("loss").y.size(), 2);
  EXPECT_LT(lm.measured.values.at("bits_per_byte"), 8);
  EXPECT_TRUE(lm.measured.values.contains("bits_per_byte/" + lm.domains.front()));
}

}  // namespace
}  // namespace cadre::recipes
