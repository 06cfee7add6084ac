#include "cadre/reshape/rank_threshold.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

constexpr size_t kTile = 64;

std::vector<bool> kept_by_threshold(const std::vector<float>& values, int64_t k) {
  const auto tiles = static_cast<int64_t>((values.size() + kTile - 1) / kTile);
  const auto tile_of = [&](int64_t tile) {
    const size_t first = static_cast<size_t>(tile) * kTile;
    return std::span(values).subspan(first, std::min(kTile, values.size() - first));
  };
  RankThreshold threshold;
  for (int pass = 0; pass < threshold.passes(); ++pass) {
    threshold.begin(pass, tiles);
    for (int64_t tile = tiles - 1; tile >= 0; --tile) threshold.count(pass, tile, tile_of(tile));
    threshold.end(pass, k);
  }
  std::vector<bool> kept;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    int64_t equals = 0;
    for (const float value : tile_of(tile)) kept.push_back(threshold.keeps(value, tile, equals));
  }
  return kept;
}

std::vector<bool> kept_by_sorting(const std::vector<float>& values, int64_t k) {
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return values[a] > values[b]; });
  std::vector<bool> kept(values.size());
  for (int64_t i = 0; i < k; ++i) kept[order[static_cast<size_t>(i)]] = true;
  return kept;
}

TEST(RankThreshold, KeepsWhatSortingKeeps) {
  Random random(1);
  for (int round = 0; round < 60; ++round) {
    std::vector<float> values(1 + random.below(400));
    const int kind = round % 4;  // all different, few different, close to each other, negative
    for (float& value : values) {
      if (kind == 1)
        value = static_cast<float>(random.below(5));
      else if (kind == 2)
        value = 1 + 1e-6F * static_cast<float>(random.below(9));
      else
        value = random.normal();
    }
    const auto n = static_cast<int64_t>(values.size());
    for (const int64_t k : {int64_t{0}, int64_t{1}, n / 3, n / 2, n - 1, n})
      EXPECT_EQ(kept_by_threshold(values, k), kept_by_sorting(values, k))
          << "kind " << kind << ", " << k << " of " << n;
  }
}

TEST(RankThreshold, AllEqualGoByIndex) {
  const std::vector<float> values(200, 0.5F);
  EXPECT_EQ(kept_by_threshold(values, 77), kept_by_sorting(values, 77));
}

TEST(RankThreshold, OrderedBitsAreTheNumbersOrder) {
  const std::vector<float> rising = {-1e30F, -2, -1e-40F, 0, 1e-40F, 0.5F, 3, 1e30F};
  for (size_t i = 0; i + 1 < rising.size(); ++i)
    EXPECT_LT(ordered_bits(rising[i]), ordered_bits(rising[i + 1]));
  for (const float value : rising) EXPECT_EQ(value_of_ordered(ordered_bits(value)), value);
}

}  // namespace
}  // namespace cadre::reshape
