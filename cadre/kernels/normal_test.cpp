#include "cadre/kernels/normal.h"

#include <numbers>

#include "cadre/kernels/panels_test_kit.h"

namespace cadre::kernels {
namespace {

std::vector<uint32_t> random_words(int64_t count) {
  Random random(7);
  std::vector<uint32_t> words(count);
  for (uint32_t& word : words) word = random.next_u32();
  return words;
}

TEST(BoxMuller, IsTheFormulaOnEveryTarget) {
  on_every_target([] {
    for (const int64_t pairs : {1, 7, 16, 33}) {
      auto words = random_words(2 * pairs);
      words[0] = 0;                          // the longest radius
      if (pairs > 1) words[1] = 0xffffffff;  // rounds to one: no radius
      Floats normals(2 * pairs);
      box_muller(words.data(), pairs, normals.data());
      for (int64_t i = 0; i < pairs; ++i) {
        const double share = ((words[i] >> 1) + 0.5) * 0x1p-31;
        const double angle = std::numbers::pi * static_cast<int32_t>(words[pairs + i]) * 0x1p-31;
        const double radius = std::sqrt(-2 * std::log(share));
        ASSERT_NEAR(normals[i], radius * std::cos(angle), 1e-4) << i << " of " << pairs;
        ASSERT_NEAR(normals[pairs + i], radius * std::sin(angle), 1e-4) << i << " of " << pairs;
      }
    }
  });
}

TEST(BoxMuller, HasTheMomentsOfANormal) {
  constexpr int64_t kPairs = 100000;
  const auto words = random_words(2 * kPairs);
  Floats normals(2 * kPairs);
  box_muller(words.data(), kPairs, normals.data());
  double mean = 0, square = 0, fourth = 0, mixed = 0;
  for (int64_t i = 0; i < 2 * kPairs; ++i) {
    const double x = normals[i];
    mean += x / (2 * kPairs);
    square += x * x / (2 * kPairs);
    fourth += x * x * x * x / (2 * kPairs);
    if (i < kPairs) mixed += x * normals[kPairs + i] / kPairs;
  }
  EXPECT_NEAR(mean, 0, 0.01);
  EXPECT_NEAR(square, 1, 0.015);
  EXPECT_NEAR(fourth, 3, 0.1);
  EXPECT_NEAR(mixed, 0, 0.015) << "both of a pair are used: they must not depend on each other";
}

}  // namespace
}  // namespace cadre::kernels
