#include "cadre/engine/expert_cache.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::engine {
namespace {

using State = ExpertCache::State;
constexpr ExpertGrid kGrid = {.layers = 5, .experts = 8};

ExpertCache make_cache(int64_t capacity, int64_t staging, std::string_view policy = "lru") {
  return ExpertCache({.grid = kGrid, .capacity = capacity, .staging = staging},
                     make_cache_policy(policy, {.grid = kGrid}));
}

TEST(ExpertCache, EvictsTheLeastOnlyWhenItMust) {
  ExpertCache cache = make_cache(1, 1);
  cache.policy().reach(0, 0);
  for (const int64_t id : {3, 4}) {
    ASSERT_TRUE(cache.reserve(id));
    cache.loaded(id);
  }
  cache.policy().use(4, 1);
  EXPECT_EQ(cache.occupied(), 2) << "the staging slot is used, too";
  cache.trim();
  EXPECT_EQ(cache.state(3), State::kAbsent);
  EXPECT_EQ(cache.state(4), State::kResident);
  EXPECT_EQ(cache.evictions(), 1);
}

TEST(ExpertCache, PinnedAndLoadingAreNeverEvicted) {
  ExpertCache cache = make_cache(1, 1);
  ASSERT_TRUE(cache.reserve(0));
  cache.loaded(0);
  cache.pin(0);
  ASSERT_TRUE(cache.reserve(1));
  EXPECT_FALSE(cache.reserve(2)) << "one is pinned, the other on its way";
  cache.trim();
  EXPECT_EQ(cache.state(0), State::kResident);
  EXPECT_EQ(cache.state(1), State::kLoading);
  cache.unpin(0);
  EXPECT_TRUE(cache.reserve(2));
  EXPECT_EQ(cache.state(0), State::kAbsent);
}

TEST(ExpertCache, GuessesLeaveTheStagingSlotsFree) {
  ExpertCache cache = make_cache(2, 2);
  cache.policy().reach(0, 0);
  for (const int64_t id : {0, 1}) {
    ASSERT_TRUE(cache.reserve_guess(id, 0));
    cache.loaded(id);
    cache.policy().use(id, 1);
  }
  EXPECT_FALSE(cache.reserve_guess(2, -5)) << "worth less than what is there";
  EXPECT_TRUE(cache.reserve_guess(2, 5));
  EXPECT_EQ(cache.occupied(), 2);
}

TEST(ExpertCache, MoreSlotsThanExpertsAreNotMade) {
  EXPECT_EQ(make_cache(1000, 1000).slots(), kGrid.size() + 1);
  EXPECT_THROW(make_cache(0, 0), UsageError);
}

/// Random life against what must always hold.
TEST(ExpertCache, InvariantsHoldInARandomLife) {
  Random random(7);
  for (const std::string_view policy : {"score", "lru", "lfu", "plec"}) {
    ExpertCache cache = make_cache(6, 3, policy);
    std::set<int64_t> pinned, loading;
    for (int step = 0; step < 4000; ++step) {
      const auto id = static_cast<int64_t>(random.below(kGrid.size()));
      switch (random.below(6)) {
        case 0:
          if (cache.state(id) == State::kAbsent && cache.reserve(id)) loading.insert(id);
          break;
        case 1:
          if (cache.state(id) == State::kAbsent && cache.reserve_guess(id, random.uniform()))
            loading.insert(id);
          break;
        case 2:
          if (loading.erase(id) > 0) cache.loaded(id);
          break;
        case 3:
          if (cache.state(id) != State::kAbsent && pinned.size() < 5) {
            cache.pin(id);
            pinned.insert(id);
          }
          break;
        case 4:
          cache.unpin(id);
          pinned.erase(id);
          break;
        default:
          cache.policy().reach(step / 10, step % kGrid.layers);
          cache.policy().use(id, 1);
          cache.trim();
      }
      std::set<int32_t> slots;
      int64_t there = 0;
      for (int64_t other = 0; other < kGrid.size(); ++other) {
        if (cache.state(other) == State::kAbsent) continue;
        ++there;
        slots.insert(cache.slot(other));
      }
      ASSERT_EQ(there, cache.occupied());
      ASSERT_EQ(static_cast<int64_t>(slots.size()), there) << "two experts in one slot";
      ASSERT_LE(there, cache.slots());
      for (const int64_t other : pinned) ASSERT_NE(cache.state(other), State::kAbsent);
      for (const int64_t other : loading) ASSERT_EQ(cache.state(other), State::kLoading);
    }
  }
}

TEST(PlecSlots, ThePapersExample) {
  EXPECT_EQ(plec_slots({3, 2}, 4), (std::vector<int64_t>{3, 1}));
}

TEST(PlecSlots, SumIsTheCapacityOrTheDemand) {
  Random random(3);
  for (int round = 0; round < 200; ++round) {
    std::vector<int64_t> demand(1 + random.below(6));
    for (int64_t& count : demand) count = static_cast<int64_t>(random.below(9));
    const auto capacity = static_cast<int64_t>(random.below(40));
    const auto slots = plec_slots(demand, capacity);
    const int64_t wanted = std::accumulate(demand.begin(), demand.end(), int64_t{0});
    EXPECT_EQ(std::accumulate(slots.begin(), slots.end(), int64_t{0}), std::min(wanted, capacity));
    for (size_t i = 0; i < slots.size(); ++i) {
      EXPECT_LE(slots[i], demand[i]);
      if (slots[i] == demand[i]) continue;
      for (size_t farther = i + 1; farther < slots.size(); ++farther) EXPECT_EQ(slots[farther], 0);
    }
  }
}

}  // namespace
}  // namespace cadre::engine
