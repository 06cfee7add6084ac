#include "cadre/reshape/adapter_router.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

std::vector<float> normals(int64_t size, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(size);
  for (float& v : values) v = random.normal();
  return values;
}

const std::vector<double> kNone = {0, 0, 0};

TEST(LocalScores, AreProductsOfNormalisedVectors) {
  LocalScores local(3, LocalScores::Kind::kGate);
  local.add("a", std::vector<float>{1, 2, 3});
  // LN(1, 2, 3) = (-r, 0, r), r = sqrt(3/2); LN(0, 0, 3) = (-s, -s, 2s), s = 1 / sqrt(2).
  const double expected = std::sqrt(1.5) * 3 / std::sqrt(2) / std::sqrt(3);
  EXPECT_NEAR(local.scores(std::vector<float>{0, 0, 3})[0], expected, 1e-9);
}

TEST(LocalScores, SizeOfAGateDoesNotMatterAndOthersStayWhenOneIsAdded) {
  const auto u = normals(16, 1);
  LocalScores one(16, LocalScores::Kind::kGate), two(16, LocalScores::Kind::kGate);
  auto v = normals(16, 2);
  one.add("a", v);
  for (float& x : v) x *= 8;
  two.add("a", v);
  two.add("b", normals(16, 3));
  EXPECT_NEAR(one.scores(u)[0], two.scores(u)[0], 1e-6);
  EXPECT_EQ(two.scores(u).size(), 2u);
}

TEST(LocalScores, AGateThatStayedAtZeroIsLeftOut) {
  LocalScores local(4, LocalScores::Kind::kGate);
  local.add("a", std::vector<float>(4, 0.0F));
  local.add("b", normals(4, 1));
  const auto scores = local.scores(normals(4, 2));
  EXPECT_EQ(scores[0], -std::numeric_limits<double>::infinity());
  const auto chosen = select_adapters(scores, std::vector<double>{0, 0}, 0);
  ASSERT_EQ(chosen.size(), 1u);
  EXPECT_EQ(chosen[0], std::pair(int64_t{1}, 1.0));
}

TEST(LocalScores, RefusesWhatDoesNotFit) {
  LocalScores local(4, LocalScores::Kind::kArrow);
  local.add("a", normals(4, 1));
  EXPECT_THROW(local.add("a", normals(4, 1)), UsageError);
  EXPECT_THROW(local.add("b", normals(3, 1)), UsageError);
  EXPECT_THROW(local.add("b", std::vector<float>{1, NAN, 0, 0}), UsageError);
  EXPECT_THROW(local.scores(normals(5, 1)), UsageError);
}

TEST(Arrow, PrototypeIsTheDirectionThatTheAdapterStretchesMost) {
  LoraModule m{.out = 12, .in = 8, .rank = 3, .a = normals(24, 1), .b = normals(36, 2)};
  const auto v = arrow_prototype(m);
  const auto stretched = [&](const std::vector<float>& x) {
    double square = 0;
    for (int64_t i = 0; i < m.out; ++i) {
      double y = 0;
      for (int64_t r = 0; r < m.rank; ++r)
        for (int64_t j = 0; j < m.in; ++j) y += m.b[i * m.rank + r] * m.a[r * m.in + j] * x[j];
      square += y * y;
    }
    return square;
  };
  for (uint64_t seed = 0; seed < 50; ++seed) {
    auto other = normals(8, 10 + seed);
    double length = 0;
    for (const float x : other) length += x * x;
    for (float& x : other) x = static_cast<float>(x / std::sqrt(length));
    EXPECT_GE(stretched(v) * 1.0001, stretched(other));
  }
}

TEST(SelectAdapters, GammaZeroIsTheLocalRouter) {
  const std::vector<double> local = {0.3, -1, 2}, global = {5, 9, -3};
  EXPECT_EQ(select_adapters(local, global, 0), select_adapters(local, kNone, 1));
}

TEST(SelectAdapters, ALargeGammaTakesTheNearestInstructions) {
  const std::vector<double> local = {4, -1, 2}, global = {0.1, 0.5, 0.9};
  const auto chosen = select_adapters(local, global, 1e6);
  EXPECT_EQ(chosen[0].first, 2);
  EXPECT_EQ(chosen[1].first, 1);
  EXPECT_NEAR(chosen[0].second, 1, 1e-9);
}

TEST(SelectAdapters, WeightsAreTheSoftmaxOfThoseKept) {
  const auto chosen = select_adapters(std::vector<double>{1, 3, 2}, kNone, 0);
  ASSERT_EQ(chosen.size(), 2u);
  const double e = std::exp(1.0);
  EXPECT_EQ(chosen[0].first, 1);
  EXPECT_NEAR(chosen[0].second, e / (e + 1), 1e-12);
  EXPECT_NEAR(chosen[1].second, 1 / (e + 1), 1e-12);
  const auto one = select_adapters(std::vector<double>{7}, std::vector<double>{0}, 3);
  EXPECT_EQ(one[0], std::pair(int64_t{0}, 1.0));
  EXPECT_THROW(select_adapters(kNone, kNone, 1, 0), UsageError);
  EXPECT_THROW(select_adapters(kNone, std::vector<double>{0}, 1), UsageError);
}

TEST(Instructions, ParaphrasesAreNearerThanOtherTasks) {
  const std::vector<std::string> tasks = {"Convert every letter of the text to upper case.",
                                          "Count the words of the sentence so far.",
                                          "Predict the next character of the text."};
  const InstructionEmbedder embedder(tasks);
  std::vector<std::vector<float>> g;
  for (const auto& task : tasks) g.push_back(embedder.embed(task));
  const auto near = cosines(embedder.embed("Write each letter in upper case."), g);
  EXPECT_GT(near[0], near[1]);
  EXPECT_GT(near[0], near[2]);
  EXPECT_NEAR(cosines(g[1], g)[1], 1, 1e-6);
  EXPECT_EQ(cosines(embedder.embed(""), g)[0], 0);
}

TEST(TaskWeight, IsHighForATaskThatAnAdapterKnows) {
  const TaskWeight weight{.threshold = 0.5};
  EXPECT_EQ(weight.gamma(std::vector<double>{0.1, 0.6}), 100);
  EXPECT_EQ(weight.gamma(std::vector<double>{0.1, 0.4}), 3);
}

}  // namespace
}  // namespace cadre::reshape
