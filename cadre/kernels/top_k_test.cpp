#include "cadre/kernels/top_k.h"

#include <limits>
#include <numeric>

#include "cadre/kernels/test_util.h"

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

}  // namespace
}  // namespace cadre::kernels
