#include "cadre/engine/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "cadre/base/error.h"

namespace cadre::engine {
namespace {

/// Shares of each token over many positions.
std::map<TokenId, double> shares(const SamplerOptions& options, const std::vector<float>& logits,
                                 int draws = 20000) {
  const Sampler sampler(options);
  std::map<TokenId, double> shares;
  std::vector<TokenId> context;
  for (int i = 0; i < draws; ++i) {
    shares[sampler.draw(logits, context)] += 1.0 / draws;
    context.push_back(1000);
  }
  return shares;
}

const std::vector<float> kLogs = {std::log(0.1F), std::log(0.4F), std::log(0.3F), std::log(0.2F)};

TEST(Sampler, GreedyTakesTheLikeliestAndTheLowerOfEquals) {
  const Sampler greedy({.temperature = 0});
  EXPECT_EQ(greedy.draw(std::vector<float>{1, 3, 2}, {}), 1);
  EXPECT_EQ(greedy.draw(std::vector<float>{1, 3, 3}, {}), 1);
  EXPECT_EQ(greedy.draw(std::vector<float>{-1}, {}), 0);
}

TEST(Sampler, DrawsWithTheModelsProbabilities) {
  const auto at = shares({.temperature = 1, .top_p = 1}, kLogs);
  EXPECT_NEAR(at.at(0), 0.1, 0.01);
  EXPECT_NEAR(at.at(1), 0.4, 0.015);
  EXPECT_NEAR(at.at(2), 0.3, 0.015);
  EXPECT_NEAR(at.at(3), 0.2, 0.015);
}

TEST(Sampler, TemperatureIsAPowerOfTheProbabilities) {
  // At 1/2 the probabilities are squared: 1, 16, 9, 4 of 30.
  const auto at = shares({.temperature = 0.5, .top_p = 1}, kLogs);
  EXPECT_NEAR(at.at(1), 16.0 / 30, 0.015);
  EXPECT_NEAR(at.at(3), 4.0 / 30, 0.015);
}

TEST(Sampler, TopKKeepsTheLikeliest) {
  const auto two = shares({.temperature = 1, .top_k = 2, .top_p = 1}, kLogs);
  EXPECT_EQ(two.size(), 2U);
  EXPECT_NEAR(two.at(1), 4.0 / 7, 0.015);
  EXPECT_EQ(shares({.temperature = 1, .top_k = 9, .top_p = 1}, kLogs).size(), 4U);
  const auto tie = shares({.temperature = 1, .top_k = 2, .top_p = 1}, {0, 1, 0, 0}, 500);
  EXPECT_TRUE(tie.contains(0) && tie.contains(1)) << "of equals the lower id stays";
}

TEST(Sampler, TopPKeepsTheFewestThatReachIt) {
  EXPECT_EQ(shares({.temperature = 1, .top_p = 0.39}, kLogs, 500).size(), 1U);
  EXPECT_EQ(shares({.temperature = 1, .top_p = 0.41}, kLogs, 500).size(), 2U);
  EXPECT_EQ(shares({.temperature = 1, .top_p = 0.8}, kLogs, 500).size(), 3U);
  // Of the two that top-k left, the first has 4/7.
  EXPECT_EQ(shares({.temperature = 1, .top_k = 2, .top_p = 0.55}, kLogs, 500).size(), 1U);
}

TEST(Sampler, MinPIsRelativeToTheLikeliest) {
  EXPECT_EQ(shares({.temperature = 1, .top_p = 1, .min_p = 0.51}, kLogs, 500).size(), 2U);
  EXPECT_EQ(shares({.temperature = 1, .top_p = 1, .min_p = 1}, kLogs, 500).size(), 1U);
}

TEST(Sampler, RepeatPenaltyMakesRecentTokensLessLikely) {
  const std::vector<float> logits = {4, 3, -1, -1.5F};
  const auto next = [&](double penalty, int64_t window, const std::vector<TokenId>& context) {
    return Sampler({.repeat_penalty = penalty, .repeat_window = window, .temperature = 0})
        .draw(logits, context);
  };
  EXPECT_EQ(next(1.0, 64, {0, 0}), 0);
  EXPECT_EQ(next(1.3, 64, {0, 0}), 0) << "counts once: 4 / 1.3 > 3";
  EXPECT_EQ(next(1.4, 64, {0, 7, -1}), 1);
  EXPECT_EQ(next(1.4, 2, {0, 7, 7}), 0) << "no longer recent";
  EXPECT_EQ(next(1.4, 0, {0, 7, 7}), 1) << "0 = all";
  const std::vector<float> negative = {-1, -1.2F};
  EXPECT_EQ(Sampler({.repeat_penalty = 2, .temperature = 0}).draw(negative, std::vector{0}), 1);
}

TEST(Sampler, DependsOnSeedAndPositionOnly) {
  const Sampler a({.temperature = 1, .seed = 5}), b({.temperature = 1, .seed = 5}),
      other({.temperature = 1, .seed = 6});
  int different = 0;
  std::vector<TokenId> context;
  for (int i = 0; i < 100; ++i) {
    const TokenId first = a.draw(kLogs, context);
    EXPECT_EQ(a.draw(kLogs, context), first);
    EXPECT_EQ(b.draw(kLogs, std::vector<TokenId>(context.size(), 3)), first);
    different += other.draw(kLogs, context) != first ? 1 : 0;
    context.push_back(0);
  }
  EXPECT_GT(different, 20);
}

TEST(Sampler, SmallAndLargeVocabulariesRankAlike) {
  std::vector<float> logits(5000, -30);
  for (size_t i = 0; i < logits.size(); i += 7) logits[i] = 0;
  const auto all = shares({.temperature = 1, .top_p = 1}, logits, 4000);
  for (const auto& [id, share] : all) EXPECT_EQ(id % 7, 0);
  EXPECT_GT(all.size(), 690U) << "715 tokens share alike";
}

TEST(Sampler, BadOptionsAndLogitsAreRefused) {
  EXPECT_THROW(Sampler({.repeat_penalty = 0}), UsageError);
  EXPECT_THROW(Sampler({.repeat_window = -1}), UsageError);
  EXPECT_THROW(Sampler({.temperature = -0.1}), UsageError);
  EXPECT_THROW(Sampler({.temperature = std::nan("")}), UsageError);
  EXPECT_THROW(Sampler({.top_k = -1}), UsageError);
  EXPECT_THROW(Sampler({.top_p = 0}), UsageError);
  EXPECT_THROW(Sampler({.top_p = 1.1}), UsageError);
  EXPECT_THROW(Sampler({.min_p = 1.1}), UsageError);
  const Sampler sampler({});
  EXPECT_THROW(sampler.draw({}, {}), UsageError);
  EXPECT_THROW(sampler.draw(std::vector<float>{0, std::nanf("")}, {}), Error);
  EXPECT_THROW(sampler.draw(std::vector<float>{0, std::numeric_limits<float>::infinity()}, {}),
               Error);
}

}  // namespace
}  // namespace cadre::engine
