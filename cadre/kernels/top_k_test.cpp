#include "cadre/kernels/top_k.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "cadre/kernels/panels_test_kit.h"

namespace cadre::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<int32_t> reference(const Floats& scores, int64_t rows, int64_t n, int64_t k) {
  std::vector<int32_t> all;
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = scores.data() + row * n;
    std::vector<int32_t> order(n);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      if (std::isnan(from[a])) return false;
      return std::isnan(from[b]) || from[a] > from[b];
    });
    all.insert(all.end(), order.begin(), order.begin() + k);
  }
  return all;
}

void expect_reference(const Floats& scores, int64_t rows, int64_t n, int64_t k) {
  std::vector<int32_t> indices(rows * k, -1);
  Floats values(rows * k);
  top_k(scores.data(), rows, n, k, indices.data(), values.data());
  ASSERT_EQ(indices, reference(scores, rows, n, k)) << "n " << n << " k " << k;
  for (int64_t i = 0; i < rows * k; ++i) {
    const float want = scores[i / k * n + indices[i]];
    ASSERT_TRUE(values[i] == want || (std::isnan(values[i]) && std::isnan(want)));
  }
}

TEST(TopK, EqualsAStableSortOverSizesAndTies) {
  for (const auto& [n, k] : std::vector<std::pair<int64_t, int64_t>>{{1, 0},
                                                                     {1, 1},
                                                                     {7, 3},
                                                                     {7, 7},
                                                                     {64, 8},
                                                                     {100, 64},
                                                                     {100, 65},
                                                                     {100, 100},
                                                                     {4096, 64},
                                                                     {4096, 4096}}) {
    Floats scores = random_floats(9 * n, n + k);
    expect_reference(scores, 9, n, k);
    for (float& score : scores) score = std::round(score);  // many ties
    expect_reference(scores, 9, n, k);
  }
}

/// Scores that a bitwise shortcut could get wrong, beside ordinary ones and their copies.
Floats strange_floats(int64_t count, uint64_t seed) {
  const Floats special{kNan, -kNan, kInf, -kInf, 0.0f, -0.0f, 1e-45f, -1e-45f, 3e38f, -3e38f};
  std::mt19937_64 generator(seed);
  std::normal_distribution<float> normal;
  Floats scores(count);
  for (float& score : scores) {
    const uint64_t draw = generator() % 16;
    score = draw < special.size() ? special[draw] : normal(generator);
    if (draw == 15) score = scores[0];
  }
  return scores;
}

void expect_reference_of_anything() {
  std::mt19937_64 generator(3);
  for (uint64_t round = 0; round < 400; ++round) {
    const auto n = static_cast<int64_t>(1 + generator() % (round % 8 == 0 ? 1200 : 150));
    const auto k = static_cast<int64_t>(generator() % static_cast<uint64_t>(n + 1));
    expect_reference(strange_floats(3 * n, round), 3, n, k);
    expect_reference(random_floats(3 * n, round), 3, n, k);
    expect_reference(strange_floats(3 * n, round), 3, n, std::min<int64_t>(k, 8));
  }
}

TEST(TopK, EqualsAStableSortOfAnything) { on_every_target(expect_reference_of_anything); }

TEST(TopK, ManyScoresTieAtTheThreshold) {
  for (const int64_t k : {1, 8, 100}) {
    Floats scores(3000, 0.5f);
    expect_reference(scores, 1, 3000, k);
    for (size_t i = 0; i < scores.size(); i += 7) scores[i] = 0.75f;
    expect_reference(scores, 1, 3000, k);
    std::iota(scores.begin(), scores.end(), 0.0f);  // the best stand in a few columns
    expect_reference(scores, 1, 3000, k);
  }
}

TEST(TopK, NanIsLastAndSignedZerosTie) {
  const Floats scores{kNan, -kInf, -0.0f, 0.0f, -kNan, kInf, kNan, -1};
  std::vector<int32_t> indices(8);
  top_k(scores.data(), 1, 8, 8, indices.data(), nullptr);
  EXPECT_EQ(indices, (std::vector<int32_t>{5, 2, 3, 7, 1, 0, 4, 6}));
  expect_reference(Floats(30, kNan), 3, 10, 4);
}

TEST(TopK, NoRowsAndNoneWantedTouchNothing) {
  top_k(nullptr, 0, 5, 2, nullptr, nullptr);
  const Floats scores(5);
  top_k(scores.data(), 1, 5, 0, nullptr, nullptr);
}

TEST(TopK, ManyRowsAreSplitOverTheTeam) {
  expect_reference(random_floats(3000 * 64, 5), 3000, 64, 6);
}

/// How many of the row's scores, in the order `ids`, it takes to pass p.
int64_t passing(const float* scores, const std::vector<int32_t>& ids, float p) {
  int64_t taken = 0;
  float sum = 0;
  while (taken < static_cast<int64_t>(ids.size()) && (taken == 0 || sum <= p)) {
    sum += scores[ids[taken++]];
  }
  return taken;
}

TEST(TopP, TakesTheFewestThatPass) {
  std::mt19937_64 generator(4);
  for (uint64_t round = 0; round < 100; ++round) {
    const auto n = static_cast<int64_t>(1 + generator() % 700);
    const float sharpness = static_cast<float>(round % 5);  // flat at 0
    Floats scores = random_floats(2 * n, round);
    for (float& score : scores) score = std::exp(sharpness * score) / static_cast<float>(n);
    for (const float p : {0.0f, 0.3f, 0.9f, 1e9f}) {
      std::vector<int32_t> ids(2 * n);
      std::vector<int64_t> counts(2);
      top_p(scores.data(), 2, n, p, ids.data(), counts.data());
      for (int64_t row = 0; row < 2; ++row) {
        const Floats own(scores.begin() + row * n, scores.begin() + (row + 1) * n);
        const auto order = reference(own, 1, n, n);
        ASSERT_EQ(counts[row], passing(own.data(), order, p)) << "n " << n << " p " << p;
        ASSERT_TRUE(std::equal(order.begin(), order.begin() + counts[row], ids.begin() + row * n));
      }
    }
  }
}

}  // namespace
}  // namespace cadre::kernels
