#include "cadre/engine/replay.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "cadre/base/error.h"
#include "cadre/engine/test_traces.h"

namespace cadre::engine {
namespace {

int64_t distinct(const RouteTrace& trace) {
  std::set<int64_t> ids;
  for (int64_t token = 0; token < trace.size(); ++token)
    for (int64_t layer = 0; layer < trace.layers; ++layer)
      for (const int16_t expert : trace.at(token, layer))
        ids.insert(layer * trace.experts + expert);
  return static_cast<int64_t>(ids.size());
}

/// Nothing beats Belady. A perfect forecast of each pass never hurts the score, and below one cycle
/// beats every policy without; above, recency may know more of the pass after.
TEST(Replay, BeladyThenPlecWithAnOracleThenTheOthers) {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    const RouteTrace trace =
        random_trace({.tokens = 120, .layers = 6, .experts = 24, .used = 3, .seed = seed});
    for (const double cycles : {0.3, 0.6, 0.9, 1.5, 3.0}) {
      const int64_t capacity = capacity_of(trace, cycles);
      const int64_t belady = replay(trace, "belady", capacity).hits;
      const int64_t plec = replay(trace, "plec", capacity).hits;
      EXPECT_GE(belady, plec) << seed << ' ' << cycles;
      for (const std::string_view online : {"score", "lru", "lfu"}) {
        const int64_t hits = replay(trace, online, capacity).hits;
        EXPECT_GE(belady, hits) << online << ' ' << seed << ' ' << cycles;
        if (cycles > 1 && online != "score") continue;
        EXPECT_GE(plec, hits) << online << ' ' << seed << ' ' << cycles;
      }
    }
  }
}

TEST(Replay, WithRoomForAllOnlyFirstUsesMiss) {
  const RouteTrace trace = random_trace({.tokens = 50});
  const int64_t experts = distinct(trace);
  for (const PolicyEntry& policy : cache_policies()) {
    const ReplayCell cell = replay(trace, policy.name, experts);
    EXPECT_EQ(cell.requests - cell.hits, experts) << policy.name;
  }
}

TEST(Replay, WithoutRoomNothingHits) {
  const RouteTrace trace = random_trace({.tokens = 20});
  for (const PolicyEntry& policy : cache_policies())
    EXPECT_EQ(replay(trace, policy.name, 0).hits, 0) << policy.name;
}

TEST(Replay, BelowOneCycleLruHitsNothingAndTheScoreDoes) {
  const RouteTrace trace =
      random_trace({.tokens = 100, .layers = 8, .experts = 32, .used = 4, .repeat = 0.5});
  const int64_t capacity = capacity_of(trace, 0.8);
  EXPECT_EQ(replay(trace, "lru", capacity).hits, 0);
  EXPECT_GT(replay(trace, "score", capacity).hit_rate(), 0.2);
}

TEST(Replay, HitsGrowWithTheCapacityOfBelady) {
  const RouteTrace trace = random_trace({.tokens = 80});
  int64_t before = 0;
  for (int64_t capacity = 0; capacity <= 64; capacity += 4) {
    const int64_t hits = replay(trace, "belady", capacity).hits;
    EXPECT_GE(hits, before);
    before = hits;
  }
}

TEST(Replay, TokensOfOnePassShareTheirExperts) {
  RouteTrace trace = random_trace({.tokens = 2, .layers = 1, .experts = 4, .used = 2});
  trace.chosen = {0, 1, 1, 2};
  trace.passes = {5, 5};
  EXPECT_EQ(replay(trace, "lru", 4).requests, 3);
  trace.passes = {5, 6};
  const ReplayCell cell = replay(trace, "lru", 4);
  EXPECT_EQ(cell.requests, 4);
  EXPECT_EQ(cell.hits, 1);
}

TEST(Replay, UseCountsFade) {
  RouteTrace trace = random_trace({.tokens = 3, .layers = 1, .experts = 2, .used = 1});
  trace.chosen = {0, 1, 1};
  EXPECT_EQ(use_counts(trace, 0), (std::vector<float>{1, 2}));
  EXPECT_EQ(use_counts(trace, 1), (std::vector<float>{0.25F, 1.5F}));
}

TEST(Replay, TableHasARowForEachCapacity) {
  const RouteTrace trace = random_trace({.tokens = 10});
  const auto cells = replay_all(trace, {4, 8});
  EXPECT_EQ(cells.size(), 2 * cache_policies().size());
  const std::string text = replay_table(cells).str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 3) << text;
  EXPECT_EQ(replay_chart(cells, "t").series.size(), cache_policies().size());
}

/// A real model's routes: the design study's table was made from them, after the prompt.
TEST(Replay, PublishedRoutesOfQwen3Agree) {
  const char* shared = std::getenv("CADRE_SHARED_DATA");
  const std::filesystem::path data =
      shared != nullptr ? shared : CADRE_SOURCE_DIR "/../shared/data";
  const auto file = data / "routes/qwen3-30b-a3b.route.csv.gz";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << file << " is not there";
  const RouteTrace all = read_trace(file);
  const RouteTrace decode = decode_part(all);
  ASSERT_EQ(decode.size(), 128);
  const ReplayOptions after_prompt = {.warm_up = all.size() - decode.size()};
  struct Known {
    double cycles, lru, score, belady;
  };
  for (const Known& known :
       {Known{0.5, 0.0, 24.6, 39.7}, Known{0.95, 0.0, 35.6, 55.7}, Known{2, 47.7, 54.6, 74.1},
        Known{4, 71.9, 76.3, 89.0}, Known{6, 86.4, 87.5, 94.8}}) {
    const int64_t capacity = capacity_of(all, known.cycles);
    const auto rate = [&](std::string_view policy) {
      return 100 * replay(token_by_token(all), policy, capacity, after_prompt).hit_rate();
    };
    EXPECT_NEAR(rate("lru"), known.lru, 0.5) << known.cycles;
    EXPECT_NEAR(rate("score"), known.score, 0.5) << known.cycles;
    EXPECT_NEAR(rate("belady"), known.belady, 1.0) << known.cycles;
  }
}

}  // namespace
}  // namespace cadre::engine
