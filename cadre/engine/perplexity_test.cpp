#include "cadre/engine/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "cadre/engine/test_sequences.h"

namespace cadre::engine {
namespace {

TEST(Perplexity, LossOfKnownProbabilities) {
  const std::vector<float> logits = {std::log(0.2F) + 90, std::log(0.8F) + 90};
  EXPECT_NEAR(token_loss(logits, 0), -std::log(0.2), 1e-5);
  EXPECT_NEAR(token_loss(std::vector<float>(5, -1000), 3), std::log(5.0), 1e-12);
}

/// Loss of tokens[first ...] of each window, computed by hand.
double expected_loss(const TestSequences& model, const std::vector<TokenId>& tokens, size_t width,
                     size_t first) {
  double sum = 0;
  int count = 0;
  for (size_t begin = 0; begin + width <= tokens.size(); begin += width) {
    for (size_t i = first; i < width; ++i, ++count) {
      const std::vector<TokenId> before(tokens.begin() + begin, tokens.begin() + begin + i);
      sum += token_loss(model.logits_after(before), tokens[begin + i]);
    }
  }
  return sum / count;
}

TEST(Perplexity, WindowsAreScoredInTheirSecondHalf) {
  TestSequences model(11);
  std::vector<TokenId> tokens(50);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<TokenId>(i * i % 11);
  double share = 0;
  const auto result = measure_perplexity(
      model, tokens, {.context = 16, .progress = [&](double done, double) { share = done; }});
  EXPECT_EQ(result.tokens, 3 * 8);
  EXPECT_NEAR(result.mean_loss, expected_loss(model, tokens, 16, 8), 1e-9);
  EXPECT_NEAR(result.perplexity(), std::exp(result.mean_loss), 1e-9);
  EXPECT_GT(result.deviation, 0);
  EXPECT_EQ(share, 1);

  const auto whole = measure_perplexity(model, tokens, {.context = 512});
  EXPECT_EQ(whole.tokens, 49);
  EXPECT_NEAR(whole.mean_loss, expected_loss(model, tokens, 50, 1), 1e-9);
}

TEST(Perplexity, RefusesWhatCannotBeMeasured) {
  TestSequences model(3);
  EXPECT_THROW(measure_perplexity(model, std::vector<TokenId>{1}, {}), UsageError);
  EXPECT_THROW(measure_perplexity(model, std::vector<TokenId>{1, 2}, {.context = 1}), UsageError);
}

}  // namespace
}  // namespace cadre::engine
