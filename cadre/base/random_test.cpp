#include "cadre/base/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <vector>

#include "cadre/base/error.h"

namespace cadre {
namespace {

// The vectors that the paper's authors publish with Random123 (kat_vectors, philox4x32 10).
TEST(Random, PhiloxKnownAnswers) {
  EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
            (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, AStreamWithoutKeysIsPlainPhilox) {
  Random random(0);
  EXPECT_EQ(random.next_u32(), 0x6627e8d5U);
  EXPECT_EQ(random.next_u64(), 0xbc57ac4ce169c58dULL);
}

TEST(Random, SeedKeysAndTheirOrderAllMatter) {
  std::set<uint64_t> first;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    first.insert(Random(seed).next_u64());
    first.insert(Random(seed, {0}).next_u64());
    first.insert(Random(seed, {0, 0}).next_u64());
    first.insert(Random(seed, {1, 2}).next_u64());
    first.insert(Random(seed, {2, 1}).next_u64());
  }
  EXPECT_EQ(first.size(), 20U);
  EXPECT_EQ(Random(3, {1, 2}).next_u64(), Random(3, {1, 2}).next_u64());
}

TEST(Random, SeekResumesAnywhere) {
  for (int drawn = 0; drawn < 12; ++drawn) {
    Random original(7, {1});
    for (int i = 0; i < drawn; ++i) original.normal();
    original.uniform();
    Random resumed(7, {1});
    resumed.seek(original.position());
    for (int i = 0; i < 9; ++i) EXPECT_EQ(original.normal(), resumed.normal());
    EXPECT_EQ(original.next_u64(), resumed.next_u64());
  }
}

TEST(Random, SeekIsExactBeyond32BitPositions) {
  Random random(1);
  random.seek((uint64_t{1} << 40) + 3);
  const auto block = philox4x32({0, uint32_t{1} << 6, 0, 0}, {1, 0});
  EXPECT_EQ(random.next_u32(), block[3]);
}

TEST(Random, UniformAndNormalMoments) {
  constexpr int kDraws = 200000;
  Random random(11);
  double uniform_sum = 0;
  double sum = 0;
  double square_sum = 0;
  double fourth_sum = 0;
  for (int i = 0; i < kDraws; ++i) {
    const float uniform = random.uniform();
    ASSERT_GE(uniform, 0.0F);
    ASSERT_LT(uniform, 1.0F);
    uniform_sum += uniform;
    const double normal = random.normal();
    sum += normal;
    square_sum += normal * normal;
    fourth_sum += normal * normal * normal * normal;
  }
  EXPECT_NEAR(uniform_sum / kDraws, 0.5, 0.005);
  EXPECT_NEAR(sum / kDraws, 0, 0.01);
  EXPECT_NEAR(square_sum / kDraws, 1, 0.02);
  EXPECT_NEAR(fourth_sum / kDraws, 3, 0.15);
}

TEST(Random, BelowIsUniformAndBounded) {
  Random random(5);
  std::vector<int> counts(7);
  for (int i = 0; i < 70000; ++i) ++counts[random.below(7)];
  for (const int count : counts) EXPECT_NEAR(count, 10000, 500);
  EXPECT_EQ(random.below(1), 0U);
  // Three quarters of the 64-bit range: naive modulo would return small numbers twice as often.
  constexpr uint64_t kBound = uint64_t{3} << 62;
  int lower_third = 0;
  for (int i = 0; i < 30000; ++i) lower_third += random.below(kBound) < kBound / 3 ? 1 : 0;
  EXPECT_NEAR(lower_third, 10000, 500);
  EXPECT_THROW(random.below(0), UsageError);
}

TEST(Random, ServesTheStandardAlgorithms) {
  std::vector<int> numbers(100);
  std::iota(numbers.begin(), numbers.end(), 0);
  auto shuffled = numbers;
  Random random(9);
  std::shuffle(shuffled.begin(), shuffled.end(), random);
  EXPECT_NE(shuffled, numbers);
  std::sort(shuffled.begin(), shuffled.end());
  EXPECT_EQ(shuffled, numbers);
}

}  // namespace
}  // namespace cadre
