#include "cadre/reshape/byte_budget.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

using Items = std::vector<std::vector<StorageOption>>;

Items random_items(uint64_t seed, int64_t count) {
  Random random(seed);
  Items items(static_cast<size_t>(count));
  for (auto& options : items) {
    const int64_t size = 1 + static_cast<int64_t>(random.below(200));
    for (int64_t bits = 1; bits <= 4; ++bits)  // roughly a quarter of the error a bit
      options.push_back({size * bits, random.uniform() * std::pow(0.25, bits)});
  }
  return items;
}

struct Total {
  int64_t bytes = 0;
  double error = 0;
};
Total total_of(const Items& items, const std::vector<size_t>& chosen) {
  Total total;
  for (size_t i = 0; i < items.size(); ++i) {
    total.bytes += items[i][chosen[i]].bytes;
    total.error += items[i][chosen[i]].error;
  }
  return total;
}

double best_error(const Items& items, int64_t budget) {
  double best = 1e30;
  std::vector<size_t> chosen(items.size(), 0);
  for (;;) {
    const Total total = total_of(items, chosen);
    if (total.bytes <= budget) best = std::min(best, total.error);
    size_t i = 0;
    while (i < items.size() && ++chosen[i] == items[i].size()) chosen[i++] = 0;
    if (i == items.size()) return best;
  }
}

TEST(ByteBudget, NeverExceedsTheBudgetAndMoreBytesNeverGiveMoreError) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Items items = random_items(seed, 12);
    const int64_t least = least_bytes(items);
    double before = 1e30;
    for (int64_t budget = least; budget <= 4 * least; budget += 7) {
      const Total total = total_of(items, choose_within(items, budget));
      ASSERT_LE(total.bytes, budget);
      ASSERT_LE(total.error, before) << "seed " << seed << " budget " << budget;
      before = total.error;
    }
  }
}

TEST(ByteBudget, ComesNearTheBestOfAllChoices) {
  double sum = 0, best_sum = 0;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Items items = random_items(seed, 6);
    const int64_t budget = least_bytes(items) * 2;
    const double best = best_error(items, budget);
    const Total total = total_of(items, choose_within(items, budget));
    EXPECT_GE(total.error, best - 1e-12);
    EXPECT_LE(total.error, 2 * best) << "seed " << seed;
    sum += total.error;
    best_sum += best;
  }
  EXPECT_LT(sum, 1.2 * best_sum);
}

TEST(ByteBudget, TakesTheBestWhenThereIsRoom) {
  const Items items = {{{10, 5}, {40, 1}, {20, 2}}, {{7, 3}, {9, 3}}};
  EXPECT_EQ(choose_within(items, 1000), (std::vector<size_t>{1, 0}));
  EXPECT_EQ(choose_within(items, 17), (std::vector<size_t>{0, 0}));
  EXPECT_EQ(choose_within(items, 27), (std::vector<size_t>{2, 0}));
}

TEST(ByteBudget, RefusesTooFewBytesAndSaysHowManyItTakes) {
  const Items items = {{{10, 5}, {40, 1}}, {{7, 3}}};
  try {
    choose_within(items, 16);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(), "16 bytes are too few: 17 are the least");
  }
  EXPECT_THROW(choose_within(Items{{}}, 16), UsageError);
}

}  // namespace
}  // namespace cadre::reshape
