#include "cadre/training/path_trainer.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/training/test_kit.h"

namespace cadre {
namespace {

constexpr int64_t kLayers = 3, kExperts = 12, kUsed = 2;

/// Layer 0 goes by the token, layer 1 by the token before, layer 2 by the one before that.
RoutedText made_up_routes(int64_t sequences, int64_t length, uint64_t seed) {
  RoutedText text = {.layers = kLayers, .experts = kExperts, .used = kUsed};
  Random random(seed);
  for (int64_t i = 0; i < sequences; ++i) {
    RoutedSequence sequence;
    for (int64_t t = 0; t < length; ++t) {
      sequence.tokens.push_back(static_cast<int32_t>(random.below(8)));
      for (const int64_t back : {0, 1, 2}) {
        const int32_t by = sequence.tokens[static_cast<size_t>(std::max<int64_t>(0, t - back))];
        sequence.chosen.push_back(static_cast<int16_t>(by));
        sequence.chosen.push_back(static_cast<int16_t>((by * 5 + 3) % kExperts));
        if (sequence.chosen.back() == by) sequence.chosen.back() = 11;
      }
    }
    text.sequences.push_back(std::move(sequence));
  }
  return text;
}

PathTrainOptions small_options() {
  return {.network = {.hidden = 16, .blocks = 1, .heads = 2, .head_width = 8, .intermediate = 32},
          .steps = 250,
          .batch = 16,
          .length = 12,
          .window = 12,
          .lr = 0.01,
          .held_out = 0.2};
}

PathScore score_of(const PathEvaluation& evaluation, int64_t batch, int64_t picks) {
  for (const PathScore& score : evaluation.scores)
    if (score.batch == batch && score.picks == picks) return score;
  ADD_FAILURE() << "no score for " << batch << " and " << picks;
  return {};
}

PathScore trained(PathTrainOptions options) {
  PathTrainer trainer(made_up_routes(60, 24, 1), options);
  trainer.train([](int64_t, double) { return true; });
  return score_of(trainer.evaluate(), 1, 2 * kUsed);
}

TEST(PathTrainer, LearnsWhatRoutesGoBy) {
  const PathScore score = trained(small_options());
  EXPECT_GT(score.recall, score.frequency_recall + 0.2);
  EXPECT_GT(score.recall, 0.7);
}

TEST(PathTrainer, LearnsNothingFromShuffledRoutes) {
  PathTrainOptions options = small_options();
  options.sabotage = true;
  const PathScore score = trained(options);
  EXPECT_LT(score.recall, score.frequency_recall + 0.05);
}

TEST(PathTrainer, IsAFunctionOfTheSeed) {
  const auto losses = [](uint64_t seed) {
    PathTrainOptions options = small_options();
    options.seed = seed;
    options.steps = 5;
    PathTrainer trainer(made_up_routes(20, 24, 1), options);
    std::vector<double> all;
    trainer.train([&](int64_t, double loss) {
      all.push_back(loss);
      return true;
    });
    return all;
  };
  EXPECT_EQ(losses(1), losses(1));
  EXPECT_NE(losses(1), losses(2));
}

TEST(PathTrainer, UnitesForecastsOverABatch) {
  PathTrainOptions options = small_options();
  options.steps = 2;
  PathTrainer trainer(made_up_routes(60, 24, 1), options);
  const PathEvaluation evaluation = trainer.evaluate();
  // Eight tokens' sets of 4 out of 12 leave next to nothing out.
  EXPECT_GT(score_of(evaluation, 8, 2 * kUsed).recall, score_of(evaluation, 1, 2 * kUsed).recall);
  const PathScore one = score_of(evaluation, 1, kUsed);
  EXPECT_NEAR(one.recall, one.precision, 1e-9) << "as many named as used";
}

TEST(PathTrainer, RefusesWhatCannotBeTrained) {
  const auto refused = [](const RoutedText& text, const PathTrainOptions& options) {
    return message_of<UsageError>([&] { PathTrainer(text, options); });
  };
  EXPECT_NE(refused(made_up_routes(1, 20, 1), small_options()).find("two or more"),
            std::string::npos);
  PathTrainOptions options = small_options();
  options.length = 0;
  EXPECT_NE(refused(made_up_routes(9, 20, 1), options).find("length is 0"), std::string::npos);
  options = small_options();
  options.network.dropout = 1;
  EXPECT_NE(refused(made_up_routes(9, 20, 1), options).find("dropout"), std::string::npos);
  RoutedText negative = made_up_routes(9, 20, 1);
  negative.sequences[0].tokens[0] = -1;
  EXPECT_NE(refused(negative, small_options()).find("token -1"), std::string::npos);
  PathTrainer trainer(made_up_routes(9, 20, 1), small_options());
  RoutedText other = made_up_routes(2, 20, 1);
  other.experts = 13;
  EXPECT_THROW(trainer.evaluate(other), UsageError);
}

}  // namespace
}  // namespace cadre
