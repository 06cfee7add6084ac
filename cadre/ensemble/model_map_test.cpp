#include "cadre/ensemble/model_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::ensemble {
namespace {

using testing::ElementsAre;

ModelMapProblem random_problem(uint64_t seed, int64_t categories, int64_t models) {
  Random random(seed);
  ModelMapProblem p{.categories = categories, .models = models};
  for (int64_t i = 0; i < categories * models; ++i) p.loss.push_back(random.uniform());
  for (int64_t c = 0; c < categories; ++c) p.share.push_back(random.uniform());
  for (int64_t m = 0; m < models; ++m) p.size.push_back(1 + static_cast<int64_t>(random.below(50)));
  return p;
}

/// Every map, without cleverness: the lowest loss within the budget; NaN when there is none.
double lowest_loss(const ModelMapProblem& p) {
  double best = std::nan("");
  const auto maps = static_cast<int64_t>(std::pow(p.models, p.categories));
  for (int64_t code = 0; code < maps; ++code) {
    double loss = 0;
    int64_t size = 0, rest = code;
    std::set<int64_t> used;
    for (int64_t c = 0; c < p.categories; ++c, rest /= p.models) {
      loss += p.share[c] * p.loss[c * p.models + rest % p.models];
      used.insert(rest % p.models);
    }
    for (const int64_t m : used) size += p.size[m];
    if (size <= p.budget && !(loss >= best)) best = loss;
  }
  return best;
}

TEST(ModelMap, EqualsBruteForce) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    ModelMapProblem p = random_problem(seed, 3, 4);
    p.budget = 1 + static_cast<int64_t>(Random(seed, {1}).below(150));
    const double expected = lowest_loss(p);
    if (std::isnan(expected)) {
      EXPECT_THROW(best_model_map(p), UsageError);
    } else {
      EXPECT_NEAR(best_model_map(p).loss, expected, 1e-12) << seed;
    }
  }
}

TEST(ModelMap, WithoutABudgetEveryCategoryHasItsBest) {
  const ModelMapProblem p = random_problem(3, 5, 6);
  const ModelMap map = best_model_map(p);
  for (int64_t c = 0; c < 5; ++c) {
    const auto row = p.loss.begin() + c * 6;
    EXPECT_EQ(map.model[c], std::min_element(row, row + 6) - row);
  }
}

TEST(ModelMap, TheSmallestModelAloneWhenNothingElseFits) {
  ModelMapProblem p = random_problem(4, 3, 3);
  p.size = {30, 10, 20};
  p.budget = 10;
  const ModelMap map = best_model_map(p);
  EXPECT_THAT(map.model, ElementsAre(1, 1, 1));
  EXPECT_EQ(map.size, 10);
  EXPECT_NEAR(map.active, 10 * (p.share[0] + p.share[1] + p.share[2]), 1e-9);
  p.budget = 9;
  EXPECT_THAT([&] { best_model_map(p); },
              testing::ThrowsMessage<UsageError>(testing::HasSubstr("10 would")));
}

TEST(ModelMap, LossNeverRisesWithTheBudget) {
  ModelMapProblem p = random_problem(5, 6, 8);
  double before = INFINITY;
  for (p.budget = 60; p.budget < 400; p.budget += 10) {
    const double loss = best_model_map(p).loss;
    EXPECT_LE(loss, before);
    before = loss;
  }
}

TEST(ModelMap, TiesGoToTheSmallerModel) {
  const ModelMapProblem p{.categories = 2,
                          .models = 3,
                          .loss = {1, 1, 1, 2, 2, 2},
                          .share = {0.5, 0.5},
                          .size = {5, 3, 4}};
  EXPECT_THAT(best_model_map(p).model, ElementsAre(1, 1));
  // Where both are needed anyway, too.
  const ModelMapProblem both{.categories = 3,
                             .models = 2,
                             .loss = {1, 2, 2, 1, 1, 1},
                             .share = {0.5, 0.25, 0.25},
                             .size = {5, 3}};
  EXPECT_THAT(best_model_map(both).model, ElementsAre(0, 1, 1));
}

TEST(ModelMap, LeavesTheGeneralModelOnlyForAGainBeyondNoise) {
  ModelMapProblem p{.categories = 2,
                    .models = 2,
                    .loss = {1, 0.95, 1, 0.5},
                    .share = {0.5, 0.5},
                    .size = {9, 1},
                    .general = 0,
                    .error = {0.1, 0.1, 0.1, 0.1}};
  EXPECT_THAT(best_model_map(p).model, ElementsAre(0, 1));
  p.margin = 0;
  EXPECT_THAT(best_model_map(p).model, ElementsAre(1, 1));
}

TEST(ModelMap, NeverUsesWhatWasNotMeasured) {
  const double nan = std::nan("");
  ModelMapProblem p{
      .categories = 2, .models = 2, .loss = {nan, 2, 1, nan}, .share = {0.5, 0.5}, .size = {1, 1}};
  EXPECT_THAT(best_model_map(p).model, ElementsAre(1, 0));
  p.loss[1] = nan;
  EXPECT_THROW(best_model_map(p), UsageError);
}

TEST(ModelMap, RefusesTablesThatDoNotFit) {
  ModelMapProblem p = random_problem(6, 2, 2);
  p.loss.pop_back();
  EXPECT_THROW(best_model_map(p), UsageError);
  p = random_problem(6, 2, 2);
  p.size[0] = 0;
  EXPECT_THROW(best_model_map(p), UsageError);
  EXPECT_THROW(best_model_map(random_problem(6, 1, 21)), UsageError);
}

}  // namespace
}  // namespace cadre::ensemble
