#include "cadre/reshape/assignment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

std::vector<float> random_scores(int64_t n, uint64_t seed) {
  Random random(seed);
  std::vector<float> scores(static_cast<size_t>(n * n));
  for (float& s : scores) s = random.normal();
  return scores;
}

double best_by_trial(int64_t n, const std::vector<float>& scores) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  double best = -std::numeric_limits<double>::infinity();
  do {
    double sum = 0;
    for (size_t i = 0; i < order.size(); ++i)
      sum += scores[i * order.size() + static_cast<size_t>(order[i])];
    best = std::max(best, sum);
  } while (std::next_permutation(order.begin(), order.end()));
  return best;
}

bool is_permutation_of(std::vector<int32_t> columns, int64_t n) {
  std::sort(columns.begin(), columns.end());
  for (size_t i = 0; i < columns.size(); ++i) {
    if (columns[i] != static_cast<int32_t>(i)) return false;
  }
  return static_cast<int64_t>(columns.size()) == n;
}

/// Each row's k best.
std::vector<Candidate> lists(int64_t n, int64_t k, const std::vector<float>& scores) {
  std::vector<Candidate> all;
  for (int64_t row = 0; row < n; ++row) {
    std::vector<Candidate> list;
    for (int64_t j = 0; j < n; ++j) {
      list.push_back({static_cast<int32_t>(j), scores[static_cast<size_t>(row * n + j)]});
    }
    std::sort(list.begin(), list.end(),
              [](const Candidate& a, const Candidate& b) { return a.score > b.score; });
    all.insert(all.end(), list.begin(), list.begin() + k);
  }
  return all;
}

TEST(Assignment, ExactEqualsTrialOfAllPermutations) {
  for (int64_t n = 1; n <= 7; ++n) {
    for (uint64_t seed = 0; seed < 40; ++seed) {
      const auto scores = random_scores(n, seed);
      const Assignment found = assign_exact(n, scores.data());
      EXPECT_TRUE(is_permutation_of(found.columns, n));
      EXPECT_NEAR(found.score, best_by_trial(n, scores), 1e-5) << n << ", seed " << seed;
    }
  }
}

TEST(Assignment, TiesGiveABestPermutation) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    Random random(seed);
    std::vector<float> scores(36);
    for (float& s : scores) s = static_cast<float>(random.below(3));
    const Assignment found = assign_exact(6, scores.data());
    EXPECT_TRUE(is_permutation_of(found.columns, 6));
    EXPECT_EQ(found.score, best_by_trial(6, scores));
  }
  const std::vector<float> equal(50 * 50, 2.0F);
  EXPECT_EQ(assign_exact(50, equal.data()).score, 100);
}

TEST(Assignment, FindsAHiddenPermutation) {
  const int64_t n = 200;
  auto scores = random_scores(n, 3);
  std::vector<int32_t> hidden(n);
  std::iota(hidden.begin(), hidden.end(), 0);
  Random random(4);
  std::shuffle(hidden.begin(), hidden.end(), random);
  for (int64_t i = 0; i < n; ++i)
    scores[static_cast<size_t>(i * n + hidden[static_cast<size_t>(i)])] += 100;
  EXPECT_EQ(assign_exact(n, scores.data()).columns, hidden);
  const auto candidates = lists(n, 4, scores);
  const auto score = [&](int64_t i, int64_t j) { return scores[static_cast<size_t>(i * n + j)]; };
  EXPECT_EQ(assign_candidates(n, 4, candidates, score).columns, hidden);
}

TEST(Assignment, AllCandidatesAreExact) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const int64_t n = 30;
    const auto scores = random_scores(n, seed);
    const auto score = [&](int64_t i, int64_t j) { return scores[static_cast<size_t>(i * n + j)]; };
    const Assignment exact = assign_exact(n, scores.data());
    EXPECT_NEAR(assign_candidates(n, n, lists(n, n, scores), score).score, exact.score, 1e-5);
    const Assignment few = assign_candidates(n, 5, lists(n, 5, scores), score);
    EXPECT_TRUE(is_permutation_of(few.columns, n));
    EXPECT_LE(few.score, exact.score + 1e-5);
    EXPECT_GE(few.score, 0.9 * exact.score);
    EXPECT_GE(few.bound, exact.score - 1e-5);
  }
}

TEST(Assignment, DegenerateSizesAndBadNumbers) {
  EXPECT_TRUE(assign_exact(0, nullptr).columns.empty());
  const float one = 5;
  EXPECT_EQ(assign_exact(1, &one).score, 5);
  const float bad[4] = {0, std::numeric_limits<float>::quiet_NaN(), 0, 0};
  EXPECT_THROW(assign_exact(2, bad), UsageError);
}

}  // namespace
}  // namespace cadre::reshape
