#include "cadre/data/permutation.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace cadre {
namespace {

std::vector<int64_t> order_of(int64_t size, uint64_t seed, uint64_t key) {
  const Permutation permutation(size, seed, {key});
  std::vector<int64_t> order(size);
  for (int64_t i = 0; i < size; ++i) order[i] = permutation(i);
  return order;
}

TEST(Permutation, HitsEveryPositionOnce) {
  for (const int64_t size : {1, 2, 3, 4, 5, 7, 16, 17, 100, 257, 1000, 4099}) {
    std::vector<int> seen(size);
    for (const int64_t at : order_of(size, 3, 1)) ++seen.at(at);
    EXPECT_EQ(seen, std::vector<int>(size, 1)) << size;
  }
}

TEST(Permutation, DependsOnSeedAndKeyOnly) {
  EXPECT_EQ(order_of(100, 1, 2), order_of(100, 1, 2));
  EXPECT_NE(order_of(100, 1, 2), order_of(100, 2, 2));
  EXPECT_NE(order_of(100, 1, 2), order_of(100, 1, 3));
}

TEST(Permutation, ScattersNeighbours) {
  const std::vector<int64_t> order = order_of(10000, 1, 1);
  double distance = 0;
  for (size_t i = 1; i < order.size(); ++i) {
    distance += static_cast<double>(std::abs(order[i] - order[i - 1]));
  }
  EXPECT_NEAR(distance / 1e4, 1e4 / 3, 200) << "two random positions are a third apart";
}

TEST(Permutation, WorksOnHugeRanges) {
  const int64_t size = int64_t{1} << 62;
  const Permutation permutation(size, 5, {});
  for (const int64_t i : {int64_t{0}, int64_t{1}, size - 1}) {
    EXPECT_GE(permutation(i), 0);
    EXPECT_LT(permutation(i), size);
  }
}

}  // namespace
}  // namespace cadre
