#include "cadre/reshape/ternary.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

std::vector<float> normals(int64_t size, uint64_t seed) {
  Random random(seed);
  std::vector<float> values(size);
  for (float& v : values) v = random.normal();
  return values;
}

std::vector<float> floats(const TernaryVector& ternary) {
  std::vector<float> values(ternary.size);
  expand(ternary.plus.data(), ternary.minus.data(), ternary.scale, values);
  return values;
}

/// By sorting: the floor(density * size) largest, ties by index, no zeros.
std::vector<float> plain(const std::vector<float>& values, double density, float scale) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return std::abs(values[a]) > std::abs(values[b]); });
  std::vector<float> result(values.size());
  for (size_t i = 0; i < static_cast<size_t>(density * values.size()); ++i) {
    const float v = values[order[i]];
    if (v != 0) result[order[i]] = v > 0 ? scale : -scale;
  }
  return result;
}

TEST(Ternary, KeepsWhatSortingKeeps) {
  for (const int64_t size : {1, 2, 63, 64, 65, 1000, 70000, 200001}) {
    for (const double density : {0.01, 0.2, 0.5, 1.0}) {
      auto values = normals(size, size);
      // Many ties and zeros: a few levels.
      if (size % 2 == 0) {
        for (float& v : values) v = std::round(v * 2) / 2;
      }
      const auto ternary = ternarize(values, {.density = density});
      EXPECT_EQ(floats(ternary), plain(values, density, ternary.scale)) << size << ' ' << density;
    }
  }
}

TEST(Ternary, ScaleIsAlphaTimesTheDeviationOfAllEntries) {
  const std::vector<float> values = {1, 2, 3, 4, 100};
  double mean = 22, squares = 0;
  for (const float v : values) squares += (v - mean) * (v - mean);
  const auto ternary = ternarize(values, {.density = 0.2, .alpha = 3});
  EXPECT_FLOAT_EQ(ternary.scale, static_cast<float>(3 * std::sqrt(squares / 4)));
  EXPECT_EQ(ternary.kept(), 1);
}

TEST(Ternary, MeanKeptAveragesMagnitudes) {
  const std::vector<float> values = {-5, 0.25F, 3, 3, -3, 0.5F};
  using Magnitude = TernaryOptions::Magnitude;
  const auto ternary = ternarize(values, {.density = 0.5, .magnitude = Magnitude::kMeanKept});
  EXPECT_FLOAT_EQ(ternary.scale, 11.0F / 3);
  EXPECT_EQ(floats(ternary), (std::vector<float>{-11.0F / 3, 0, 11.0F / 3, 11.0F / 3, 0, 0}));
}

TEST(Ternary, AgreesWithFloatAlgebra) {
  const int64_t size = 10007;
  const auto x = normals(size, 1), y = normals(size, 2);
  const auto a = ternarize(x, {.density = 0.3}), b = ternarize(y, {.density = 0.1, .alpha = 2});
  const auto fa = floats(a), fb = floats(b);
  double product = 0, length = 0;
  int64_t differ = 0;
  for (int64_t i = 0; i < size; ++i) {
    product += static_cast<double>(fa[i]) * fb[i];
    length += static_cast<double>(fa[i]) * fa[i];
    const auto sign = [](float v) { return (v > 0) - (v < 0); };
    differ += sign(fa[i]) != sign(fb[i]);
  }
  EXPECT_NEAR(dot(a, b), product, 1e-6 * std::abs(product));
  EXPECT_NEAR(squared_length(a), length, 1e-6 * length);
  EXPECT_EQ(hamming(a, b), differ);
  auto sum = x;
  add_to(a, 0.5F, sum);
  for (int64_t i = 0; i < size; ++i) EXPECT_EQ(sum[i], x[i] + 0.5F * fa[i]);
  EXPECT_THROW(dot(a, ternarize(normals(3, 1), {})), UsageError);
}

TEST(Ternary, DoesNotDependOnThreads) {
  const auto values = normals(500000, 5);
  const int before = num_threads();
  set_num_threads(1);
  const auto one = ternarize(values, {});
  set_num_threads(3);
  const auto three = ternarize(values, {});
  set_num_threads(before);
  EXPECT_EQ(one.plus, three.plus);
  EXPECT_EQ(one.scale, three.scale);
}

TEST(Ternary, RefusesWhatIsNoVectorOrShare) {
  const auto values = normals(10, 1);
  EXPECT_THROW(ternarize(values, {.density = 0}), UsageError);
  EXPECT_THROW(ternarize(values, {.density = 1.5}), UsageError);
  EXPECT_THROW(ternarize(values, {.alpha = 0}), UsageError);
  EXPECT_THROW(ternarize(values, {.alpha = std::nan("")}), UsageError);
  EXPECT_THROW(ternarize({}, {}), UsageError);
  auto broken = values;
  broken[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(ternarize(broken, {}), UsageError);
  broken[3] = -std::numeric_limits<float>::infinity();
  EXPECT_THROW(ternarize(broken, {}), UsageError);
}

TEST(Ternary, BitsAnEntryAsInTheTable) {
  // density, entropy, b*, Golomb bits.
  const double table[][4] = {{0.05, 0.336, 4, 0.339},
                             {0.1, 0.569, 3, 0.576},
                             {0.2, 0.922, 2, 0.939},
                             {0.3, 1.181, 1, 1.188},
                             {0.5, 1.5, 0, 1.5}};
  for (const auto& [density, entropy, b, golomb] : table) {
    EXPECT_NEAR(entropy_bits(density), entropy, 6e-4);
    EXPECT_EQ(golomb_parameter(density), b);
    EXPECT_NEAR(golomb_bits(density), golomb, 6e-4);
  }
}

}  // namespace
}  // namespace cadre::reshape
