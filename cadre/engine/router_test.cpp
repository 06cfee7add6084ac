#include "cadre/engine/router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace cadre::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatNear;

struct Routed {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Routed route(const RouterSpec& spec, std::vector<float> logits, RouteChoice choice,
             std::vector<float> bias = {}) {
  const Router router(spec, static_cast<int64_t>(logits.size()), std::move(bias));
  Routed routed{std::vector<int32_t>(static_cast<size_t>(choice.k)),
                std::vector<float>(static_cast<size_t>(choice.k))};
  router.choose(choice, logits.data(), routed.experts.data(), routed.weights.data());
  return routed;
}

float log_of(float x) { return std::log(x); }

TEST(Router, SoftmaxWeightsAreProbabilities) {
  const std::vector<float> logits = {log_of(1), log_of(4), log_of(2), log_of(3)};
  const Routed raw = route({}, logits, {.k = 2});
  EXPECT_THAT(raw.experts, ElementsAre(1, 3));
  EXPECT_THAT(raw.weights, ElementsAre(FloatNear(0.4F, 1e-6F), FloatNear(0.3F, 1e-6F)));
  const Routed shares = route({.normalize = true, .scale = 7}, logits, {.k = 2});
  EXPECT_THAT(shares.weights, ElementsAre(FloatNear(4, 1e-5F), FloatNear(3, 1e-5F)));
  const Routed selected = route({.gating = Gating::kSoftmaxOfSelected}, logits, {.k = 2});
  EXPECT_THAT(selected.weights,
              ElementsAre(FloatNear(4 / 7.0F, 1e-6F), FloatNear(3 / 7.0F, 1e-6F)));
}

TEST(Router, TiesGoToTheLowerExpert) {
  EXPECT_THAT(route({}, {1, 2, 2, 2, 1}, {.k = 4}).experts, ElementsAre(1, 2, 3, 0));
  EXPECT_THAT(route({}, {0, 0, 0}, {.k = 3}).experts, ElementsAre(0, 1, 2));
}

TEST(Router, BiasMovesTheSelectionOnly) {
  const RouterSpec spec = {.gating = Gating::kSigmoid};
  const Routed routed = route(spec, {0, 3, 1, 2}, {.k = 2}, {1, 0, 0, 0});
  EXPECT_THAT(routed.experts, ElementsAre(0, 1));
  EXPECT_THAT(routed.weights,
              ElementsAre(FloatNear(0.5F, 1e-6F), FloatNear(1 / (1 + std::exp(-3.0F)), 1e-6F)));
}

TEST(Router, GroupsGoByTheirBestOrWithBiasByTheirTwoBest) {
  const RouterSpec spec = {.gating = Gating::kSigmoid, .groups = 2, .groups_used = 1};
  const std::vector<float> logits = {3, -9, -9, 2, 1, 0};
  EXPECT_THAT(route(spec, logits, {.k = 2}).experts, ElementsAre(0, 1));
  EXPECT_THAT(route(spec, logits, {.k = 2}, std::vector<float>(6)).experts, ElementsAre(3, 4));
}

TEST(Router, TopPKeepsTheFewestThatHoldTheShare) {
  const std::vector<float> logits = {log_of(5), log_of(3), log_of(2), log_of(10)};
  const RouterSpec spec = {.normalize = true};
  const Routed two = route(spec, logits, {.k = 4, .top_p = 0.7F});
  EXPECT_THAT(two.experts, ElementsAre(3, 0, -1, -1));
  EXPECT_THAT(two.weights,
              ElementsAre(FloatNear(2 / 3.0F, 1e-6F), FloatNear(1 / 3.0F, 1e-6F), 0, 0));
  EXPECT_THAT(route(spec, logits, {.k = 4, .top_p = 0}).experts, ElementsAre(3, -1, -1, -1));
  EXPECT_THAT(route(spec, logits, {.k = 4, .top_p = 1}).experts, ElementsAre(3, 0, 1, 2));
}

TEST(Router, SparseMixerWeighsAgainstNearExpertsOnly) {
  const RouterSpec spec = {.gating = Gating::kSparseMixer};
  const Routed apart = route(spec, {1, 5, 3}, {.k = 2});
  EXPECT_THAT(apart.experts, ElementsAre(1, 2));
  EXPECT_THAT(apart.weights, ElementsAre(1, 1));
  const Routed near = route(spec, {5, 5, 1}, {.k = 2});
  EXPECT_THAT(near.experts, ElementsAre(0, 1));
  EXPECT_THAT(near.weights, ElementsAre(0.5F, 1));
}

}  // namespace
}  // namespace cadre::engine
