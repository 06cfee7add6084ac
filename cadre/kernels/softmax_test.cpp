#include "cadre/kernels/softmax.h"

#include <limits>

#include "cadre/base/error.h"
#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

using Doubles = std::vector<double>;

double log_sum_exp(const float* x, int64_t n) {
  double largest = -kInf;
  for (int64_t i = 0; i < n; ++i) largest = std::max<double>(largest, x[i]);
  if (largest == -kInf) return -kInf;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(x[i] - largest);
  return largest + std::log(sum);
}

Doubles softmax_reference(const Floats& x, int64_t rows, int64_t n) {
  Doubles y(x.size());
  for (int64_t i = 0; i < rows * n; ++i) {
    const double lse = log_sum_exp(x.data() + i / n * n, n);
    y[i] = lse == -kInf ? 0 : std::exp(x[i] - lse);
  }
  return y;
}

TEST(Softmax, EqualsTheReferenceOverSizesAndRanges) {
  for (const int64_t n : {1, 2, 7, 16, 33, 100, 2048, 5003}) {
    for (const float scale : {0.1f, 3.0f, 40.0f}) {
      Floats x = random_floats(5 * n, n, scale);
      if (n > 2) x[n + 1] = -kInf;
      Floats y(x.size());
      softmax_rows(x.data(), 5, n, y.data());
      expect_close(y, softmax_reference(x, 5, n), 2e-6, "softmax");
      Floats lse(5);
      Doubles want;
      for (int64_t row = 0; row < 5; ++row) want.push_back(log_sum_exp(x.data() + row * n, n));
      logsumexp_rows(x.data(), 5, n, lse.data());
      expect_close(lse, want, 2e-6, "logsumexp");
      softmax_rows(x.data(), 5, n, x.data());
      EXPECT_EQ(x, y) << "in place";
    }
  }
}

TEST(Softmax, RowsOfMinusInfinityGiveZerosAndNanComesThrough) {
  const int64_t n = 19;
  Floats x(3 * n, -kInf);
  for (int64_t i = 0; i < n; ++i) x[n + i] = 1;
  x[n + 4] = kNan;
  for (int64_t i = 0; i < n; ++i) x[2 * n + i] = 1;
  Floats y(x.size());
  Floats lse(3);
  softmax_rows(x.data(), 3, n, y.data());
  logsumexp_rows(x.data(), 3, n, lse.data());
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_EQ(y[i], 0);
    EXPECT_TRUE(std::isnan(y[n + i]));
    EXPECT_NEAR(y[2 * n + i], 1.0 / n, 1e-7);
  }
  EXPECT_EQ(lse[0], -kInf);
  EXPECT_TRUE(std::isnan(lse[1]));
}

TEST(Softmax, GradientMeetsCentralDifferences) {
  Floats x = random_floats(3 * 21, 1);
  const Floats dy = random_floats(3 * 21, 2);
  Floats y(x.size());
  const auto loss = [&] {
    softmax_rows(x.data(), 3, 21, y.data());
    return dot(y, dy);
  };
  const Doubles want = numeric_gradient(x, loss);
  loss();
  Floats dx(x.size());
  softmax_rows_backward(y.data(), dy.data(), 3, 21, dx.data());
  expect_close(dx, want, 1e-4, "dx");
}

TEST(CrossEntropy, LossAndGradientEqualTheReference) {
  for (const int64_t classes : {1, 2, 17, 300, 4099}) {
    const int64_t rows = 6;
    Floats logits = random_floats(rows * classes, classes, 4);
    std::vector<int64_t> targets(rows);
    for (int64_t row = 0; row < rows; ++row) targets[row] = row * 31 % classes;
    targets[2] = -100;
    Doubles want_loss(rows);
    Doubles want = softmax_reference(logits, rows, classes);
    for (int64_t row = 0; row < rows; ++row) {
      const bool counts = targets[row] >= 0;
      const float* x = logits.data() + row * classes;
      want_loss[row] = counts ? log_sum_exp(x, classes) - x[targets[row]] : 0;
      if (counts) want[row * classes + targets[row]] -= 1;
      for (int64_t i = 0; i < classes; ++i) want[row * classes + i] *= counts ? 0.25 : 0;
    }
    Floats loss(rows);
    cross_entropy(logits.data(), targets.data(), rows, classes, 0.25f, loss.data());
    expect_close(loss, want_loss, 2e-6, "loss");
    expect_close(logits, want, 2e-6, "gradient");
  }
}

TEST(CrossEntropy, NanIsNotHiddenAndBadTargetsAreErrors) {
  Floats logits(40, 1);
  logits[7] = kNan;
  std::vector<int64_t> targets{3, 3};
  Floats loss(2);
  cross_entropy(logits.data(), targets.data(), 2, 20, 1, loss.data());
  EXPECT_TRUE(std::isnan(loss[0]));
  EXPECT_NEAR(loss[1], std::log(20.0), 1e-5);
  for (const int64_t bad : {20, -1}) {
    targets[1] = bad;
    EXPECT_THROW(cross_entropy(logits.data(), targets.data(), 2, 20, 1, loss.data()), Error);
  }
}

TEST(Softmax, SameBitsForAnyTeam) {
  const Floats x = random_floats(500 * 300, 1);
  expect_same_bits([&] {
    Floats y(x.size());
    softmax_rows(x.data(), 500, 300, y.data());
    return y;
  });
}

}  // namespace
}  // namespace cadre::kernels
