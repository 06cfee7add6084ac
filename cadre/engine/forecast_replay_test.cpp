#include "cadre/engine/forecast_replay.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/engine/replay.h"
#include "cadre/engine/test_traces.h"

namespace cadre::engine {
namespace {

RouteTrace random_routes(int64_t tokens) { return random_trace({.tokens = tokens}); }

TEST(ForecastReplay, WithoutForecastsItIsPlainReplay) {
  const RouteTrace trace = random_routes(200);
  for (const char* policy : {"lru", "lfu", "score"}) {
    const ForecastCell ours = replay_forecasts(trace, policy, {}, 24);
    const ReplayCell plain = replay(trace, policy, 24);
    EXPECT_EQ(ours.hits, plain.hits) << policy;
    EXPECT_EQ(ours.requests, plain.requests);
    EXPECT_EQ(ours.reads, ours.requests - ours.hits);
    EXPECT_EQ(ours.unused, 0);
  }
}

TEST(ForecastReplay, APerfectForecastAndAFastDiskMissOnlyInTheFirstLayer) {
  const RouteTrace trace = random_routes(200);
  const ForecastCell cell = replay_forecasts(trace, "plec", true_forecasts(trace), 24, 50);
  EXPECT_LE(cell.requests - cell.hits, 2 * 200) << "layer 0 is needed when its pass begins";
  EXPECT_EQ(cell.unused, 0);
  const ForecastCell slow = replay_forecasts(trace, "plec", true_forecasts(trace), 24, 0.5);
  EXPECT_LT(slow.hits, cell.hits);
  EXPECT_GT(slow.stall, cell.stall);
}

TEST(ForecastReplay, AWrongForecastCostsReads) {
  const RouteTrace trace = random_routes(200);
  Forecasts wrong = true_forecasts(trace);
  for (auto& pass : wrong)
    for (int64_t& id : pass) id = id / 16 * 16 + (id + 8) % 16;
  const ForecastCell right = replay_forecasts(trace, "plec", true_forecasts(trace), 24);
  const ForecastCell cell = replay_forecasts(trace, "plec", wrong, 24);
  EXPECT_LT(cell.hits, right.hits);
  EXPECT_GT(cell.unused, 100);
  EXPECT_EQ(cell.requests, right.requests);
}

TEST(ForecastReplay, RefusesATraceWithoutTokensAndADiskThatStandsStill) {
  RouteTrace trace = random_routes(3);
  EXPECT_THROW(replay_forecasts(trace, "lru", {}, 8, 0), UsageError);
  trace.tokens.clear();
  EXPECT_THROW(path_forecasts(trace, "any"), UsageError);
}

}  // namespace
}  // namespace cadre::engine
