#include "cadre/engine/predictor.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/engine/expert_usage.h"
#include "cadre/engine/prefetch.h"
#include "cadre/engine/test_traces.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

constexpr ExpertGrid kGrid = {.layers = 3, .experts = 6};

std::vector<int32_t> guesses_of(Predictor& predictor, int64_t count) {
  std::vector<Guess> guesses;
  predictor.guess(count, guesses);
  std::vector<int32_t> experts;
  for (const Guess& guess : guesses) experts.push_back(kGrid.expert_of(guess.id));
  return experts;
}

void see(Predictor& predictor, int64_t layer, const std::vector<int32_t>& experts) {
  const std::vector<float> hidden(4, 1.0F);
  predictor.observe(layer, hidden.data(), 1, experts);
}

TEST(Predictors, PreviousRepeatsTheTokenBefore) {
  const auto predictor = make_predictor("previous", {.grid = kGrid});
  see(*predictor, 1, {4, 2});
  see(*predictor, 0, {1, -1});
  EXPECT_EQ(guesses_of(*predictor, 5), (std::vector<int32_t>{2, 4}));
}

TEST(Predictors, FrequencyCountsAndFades) {
  const auto predictor = make_predictor("frequency", {.grid = kGrid, .half_life = 2});
  for (int i = 0; i < 3; ++i) see(*predictor, 1, {5});
  see(*predictor, 1, {3});
  see(*predictor, 0, {0});
  EXPECT_EQ(guesses_of(*predictor, 2), (std::vector<int32_t>{5, 3}));
  for (int i = 0; i < 6; ++i) see(*predictor, 1, {3});
  see(*predictor, 0, {0});
  EXPECT_EQ(guesses_of(*predictor, 1), (std::vector<int32_t>{3}));
}

TEST(Predictors, CoActivationLearnsWhatFollows) {
  const auto predictor = make_predictor("coactivation", {.grid = kGrid});
  for (int i = 0; i < 4; ++i) {
    see(*predictor, 0, {i % 2});
    see(*predictor, 1, {i % 2 == 0 ? 5 : 2});
    see(*predictor, 2, {3});
  }
  see(*predictor, 0, {0});
  EXPECT_EQ(guesses_of(*predictor, 3), (std::vector<int32_t>{5}));
  see(*predictor, 0, {1});
  EXPECT_EQ(guesses_of(*predictor, 3), (std::vector<int32_t>{2}));
}

TEST(Predictors, GateAsksTheNextRouterAndFallsBackAtTheEnd) {
  int64_t asked = -1;
  const GateFunction gate = [&](int64_t layer, const float*, int64_t tokens,
                                std::vector<float>& probabilities) {
    asked = layer;
    probabilities.assign(tokens * kGrid.experts, 0.0F);
    probabilities[4] = 0.7F, probabilities[1] = 0.3F;
    return true;
  };
  const auto predictor = make_predictor("gate", {.grid = kGrid, .gate = gate});
  see(*predictor, 0, {0});
  EXPECT_EQ(asked, 1);
  EXPECT_EQ(guesses_of(*predictor, 2), (std::vector<int32_t>{4, 1}));
  for (int i = 0; i < 2; ++i) {
    see(*predictor, 2, {2});
    see(*predictor, 0, {3});
  }
  see(*predictor, 2, {2});
  EXPECT_EQ(guesses_of(*predictor, 2), (std::vector<int32_t>{3})) << "what followed the last layer";
  EXPECT_THROW(make_predictor("gate", {.grid = kGrid}), UsageError);
}

TEST(Predictors, AreFoundByName) {
  EXPECT_THROW(make_predictor("crystal", {.grid = kGrid}), UsageError);
  EXPECT_THROW(make_predictor("path", {.grid = kGrid}), UsageError) << "needs a file";
  const auto none = make_predictor("none", {.grid = kGrid});
  see(*none, 0, {1});
  EXPECT_TRUE(guesses_of(*none, 3).empty());
}

TEST(PrefetchGauge, WidthFillsTheGapAndABusyDiskWantsBetterGuesses) {
  PrefetchGauge gauge({.bandwidth = 1000});
  EXPECT_EQ(gauge.width(10), 0) << "nothing before the first measurement";
  EXPECT_DOUBLE_EQ(gauge.threshold(), 0.6);
  gauge.measure_layer(0.5, 1.0);
  EXPECT_EQ(gauge.width(100), 5);
  EXPECT_EQ(gauge.width(130), 3);
  EXPECT_DOUBLE_EQ(gauge.threshold(), 0.3);
  for (int i = 0; i < 200; ++i) gauge.measure_layer(1.0, 1.0);
  EXPECT_NEAR(gauge.threshold(), 0, 1e-6);
  for (int i = 0; i < 200; ++i) gauge.measure_reading(500, 1);
  EXPECT_NEAR(gauge.bandwidth(), 500, 1);
  gauge.measure_reading(0, 0);
  gauge.measure_layer(0, 0);
}

TEST(RankCalibration, LearnsHowOftenARankComesTrue) {
  RankCalibration calibration(4);
  EXPECT_DOUBLE_EQ(calibration.probability(0), 0.5);
  for (int i = 0; i < 1000; ++i) calibration.learn(1, i % 4 == 0 ? 1 : 0);
  EXPECT_NEAR(calibration.probability(1), 0.25, 0.05);
  EXPECT_EQ(calibration.probability(4), 0);
  calibration.learn(9, 1);
}

TEST(ExpertUsage, IsRememberedAndForgottenWhenUnusable) {
  const TestFolder folder;
  ExpertUsage usage(kGrid);
  for (int i = 0; i < 5000; ++i) usage.add_pass({1, 7});
  EXPECT_NEAR(usage.rates()[7], 1, 0.01);
  EXPECT_NEAR(usage.prior(8)[7], 1 / (1 - std::exp2(-1.0 / 8)), 0.2);
  save_usage(folder / "deep", "0123", kGrid, usage.rates());
  EXPECT_EQ(load_usage(folder / "deep", "0123", kGrid), usage.rates());
  EXPECT_FALSE(load_usage(folder / "deep", "4567", kGrid));
  EXPECT_FALSE(load_usage(folder / "deep", "0123", {.layers = 2, .experts = 9}));
  write_file(folder / "deep/usage-0123.safetensors", "rubbish");
  EXPECT_FALSE(load_usage(folder / "deep", "0123", kGrid));
}

}  // namespace
}  // namespace cadre::engine
