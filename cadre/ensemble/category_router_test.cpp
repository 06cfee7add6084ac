#include "cadre/ensemble/category_router.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::ensemble {
namespace {

/// Texts of three made-up languages: letters from three parts of the alphabet.
struct Texts {
  std::vector<std::string> texts;
  std::vector<int64_t> categories;
};

Texts make_texts(int64_t count, uint64_t seed) {
  Random random(seed);
  Texts all;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t category = i % 3;
    std::string text;
    for (int j = 0; j < 60; ++j) {
      text += static_cast<char>('a' + 6 * category + static_cast<int64_t>(random.below(10)));
    }
    all.texts.push_back(text);
    all.categories.push_back(category);
  }
  return all;
}

TEST(NgramFeatures, AreOfUnitLengthAndDoNotDependOnOrderOfCounting) {
  const auto features = ngram_features("abab", {.features = 1 << 20, .shortest = 1, .longest = 2});
  EXPECT_EQ(features.size(), 4u);  // a, b, ab, ba
  EXPECT_NEAR(dot(features, features), 1, 1e-6);
  EXPECT_TRUE(ngram_features("").empty());
  EXPECT_EQ(dot(ngram_features("aaaa", {.features = 1 << 20}),
                ngram_features("zzzz", {.features = 1 << 20})),
            0);
}

TEST(CategoryRouter, LearnsWhatLettersTell) {
  const Texts train = make_texts(150, 1), test = make_texts(90, 2);
  const CategoryRouter router(train.texts, train.categories);
  int64_t right = 0;
  for (size_t i = 0; i < test.texts.size(); ++i) {
    right += router.route(test.texts[i]).category == test.categories[i];
    const auto p = router.probabilities(test.texts[i]);
    EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), 1, 1e-9);
  }
  EXPECT_GE(right, 88);
  const CategoryRouter again(train.texts, train.categories);
  EXPECT_EQ(again.probabilities("abc"), router.probabilities("abc"));
}

TEST(CategoryRouter, SaysWhenItIsUnsure) {
  using Confidence = CategoryRouter::Answer::Confidence;
  const Texts train = make_texts(150, 1), validation = make_texts(100, 3);
  CategoryRouter router(train.texts, train.categories);
  EXPECT_EQ(router.route("0123456789").confidence, Confidence::kSure);  // not calibrated
  router.calibrate(validation.texts, validation.categories);
  int64_t sure = 0;
  for (const std::string& text : validation.texts) {
    sure += router.route(text).confidence == Confidence::kSure;
  }
  EXPECT_GE(sure, 95);
  EXPECT_EQ(router.route("0123456789").confidence, Confidence::kUnsure);
  router.set_threshold(-1);
  EXPECT_EQ(router.route(train.texts[0]).confidence, Confidence::kUnsure);
  router.set_threshold(INFINITY);
  EXPECT_EQ(router.route("0123456789").confidence, Confidence::kSure);
}

TEST(CategoryRouter, IsNotCertainOfTextsThatAreAllClassifiedRight) {
  const Texts train = make_texts(150, 1), validation = make_texts(98, 3);
  CategoryRouter router(train.texts, train.categories);
  router.calibrate(validation.texts, validation.categories);
  double mean = 0;
  for (const std::string& text : validation.texts) mean += router.route(text).probability / 98;
  EXPECT_NEAR(mean, 0.99, 0.006);  // one miss in a hundred, by Platt's rule
}

TEST(CategoryRouter, RefusesLabelsThatDoNotFit) {
  const std::vector<std::string> texts = {"a", "b"};
  using Labels = std::vector<int64_t>;
  EXPECT_THROW(CategoryRouter(texts, Labels{0}), UsageError);
  EXPECT_THROW(CategoryRouter({}, Labels{}), UsageError);
  EXPECT_THROW(CategoryRouter(texts, Labels{0, -1}), UsageError);
  CategoryRouter router(texts, Labels{0, 1});
  EXPECT_THROW(router.calibrate(texts, Labels{0, 2}), UsageError);
}

TEST(NearestTexts, TellsStrangeTexts) {
  const Texts known = make_texts(60, 1);
  const NearestTexts nearest(known.texts);
  EXPECT_LT(nearest.distance(make_texts(1, 9).texts[0]), nearest.distance("0123456789"));
  EXPECT_NEAR(nearest.distance(known.texts[0], 1), 0, 1e-6);
  EXPECT_THROW(nearest.distance("a", 0), UsageError);
  EXPECT_THROW(nearest.distance("a", 61), UsageError);
}

}  // namespace
}  // namespace cadre::ensemble
