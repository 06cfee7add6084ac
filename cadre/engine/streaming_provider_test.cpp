#include "cadre/engine/streaming_provider.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "cadre/base/error.h"
#include "cadre/engine/faulty_reader.h"
#include "cadre/engine/test_experts.h"

namespace cadre::engine {
namespace {

constexpr ExpertGrid kGrid = {.layers = 4, .experts = 12};
constexpr int64_t kUsed = 3;

/// Runs passes over a provider as the forward pass does and checks every panel.
class Runner {
 public:
  Runner(const StreamingOptions& options, const Faults& faults = {},
         ExpertFiles::Form form = ExpertFiles::Form::kPanels)
      : experts_(form, kGrid),
        provider(experts_.files, options,
                 std::make_unique<FaultyReader>(
                     open_file_reader(experts_.files.paths, options.method, 4), faults)) {}

  /// Returns false when the pass failed.
  bool run_layer(int64_t layer, const std::vector<int32_t>& experts, int64_t tokens) {
    const std::vector<float> weights(experts.size(), 1.0F);
    provider.begin_layer(layer, experts, weights, tokens);
    std::vector<int32_t> chosen = experts;
    chosen.resize(tokens * (experts.size() + tokens - 1) / tokens, -1);
    const std::vector<float> hidden(tokens * 4, 0.5F);
    provider.observe(layer, hidden.data(), tokens, chosen);
    bool good = true;
    std::set<int32_t> seen;
    try {
      while (true) {
        const auto ready = provider.take_ready();
        if (ready.empty()) break;
        for (const int32_t index : ready) {
          EXPECT_TRUE(seen.insert(index).second) << "handed out twice";
          check(layer, experts[index]);
        }
        const std::vector<int32_t> copy(ready.begin(), ready.end());
        for (const int32_t index : copy) provider.release(layer, experts[index]);
      }
      EXPECT_EQ(seen.size(), experts.size());
    } catch (const IoError& error) {
      good = false;
      last_error = error.what();
    }
    provider.end_layer(layer);
    return good;
  }

  int64_t run_passes(int64_t passes, int64_t tokens = 1, int64_t used = kUsed) {
    int64_t failed = 0;
    for (int64_t pass = 0; pass < passes; ++pass)
      for (int64_t layer = 0; layer < kGrid.layers; ++layer)
        if (!run_layer(layer, draw(used), tokens)) ++failed;
    return failed;
  }

  std::vector<int32_t> draw(int64_t used) {
    std::set<int32_t> experts;
    while (static_cast<int64_t>(experts.size()) < used) {
      const double u = random_.uniform();
      experts.insert(static_cast<int32_t>(u * u * kGrid.experts));
    }
    return {experts.begin(), experts.end()};
  }

  int64_t slot_bytes() const { return experts_.files.slot_bytes(); }
  std::string last_error;

 private:
  void check(int64_t layer, int32_t expert) {
    const ExpertPanels panels = provider.panels(layer, expert);
    const auto& expected = experts_.panels[kGrid.id(layer, expert)];
    EXPECT_EQ(std::memcmp(panels.gate.data, expected.data(), expected.size()), 0)
        << layer << ' ' << expert;
    EXPECT_EQ(panels.down.rows, 64);
    EXPECT_TRUE(provider.is_resident(layer, expert));
  }

  TestExperts experts_;
  Random random_{5};

 public:
  StreamingProvider provider;
};

int64_t slots(int64_t count) {
  static const int64_t bytes = TestExperts(ExpertFiles::Form::kPanels, kGrid).files.slot_bytes();
  return count * bytes;
}

StreamingOptions options_with(int64_t memory) {
  return {.memory = memory, .experts_used = kUsed, .predictor = "coactivation"};
}

TEST(StreamingProvider, EveryBudgetPolicyAndPredictorGivesTheSameBytes) {
  for (const int64_t count : {2, 3, 6, 12, 24, 48})
    for (const char* policy : {"score", "lru", "lfu", "plec"})
      for (const char* predictor : {"none", "coactivation", "frequency", "previous"}) {
        StreamingOptions options = options_with(slots(count));
        options.policy = policy;
        options.predictor = predictor;
        Runner runner(options, {.short_read = 0.1, .delay = 0.3});
        EXPECT_EQ(runner.run_passes(6), 0);
        const ExpertCounters counters = runner.provider.counters();
        EXPECT_EQ(counters.hits + counters.misses, 6 * kGrid.layers * kUsed);
      }
}

TEST(StreamingProvider, StoredRowsAreRepackedOnTheWay) {
  const TestExperts experts(ExpertFiles::Form::kRows, kGrid);
  for (const ReadMethod method : {ReadMethod::kRing, ReadMethod::kThreads, ReadMethod::kMapped}) {
    StreamingOptions options = options_with(slots(8) + ExpertStore::buffer_bytes(experts.files));
    options.method = method;
    Runner runner(options, {.delay = 0.3}, ExpertFiles::Form::kRows);
    EXPECT_EQ(runner.run_passes(5), 0);
  }
}

TEST(StreamingProvider, WithRoomForAllOnlyFirstUsesAreRead) {
  StreamingOptions options = options_with(slots(48));
  options.predictor = "none";
  Runner runner(options);
  runner.run_passes(200);
  const int64_t after = runner.provider.counters().bytes_read;
  EXPECT_LE(after, slots(48));
  EXPECT_EQ(runner.provider.slots().capacity, kGrid.size());
  for (int64_t layer = 0; layer < kGrid.layers; ++layer)
    runner.run_layer(layer, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 1);
  runner.run_passes(50);
  EXPECT_EQ(runner.provider.counters().bytes_read, slots(48)) << "no expert is read twice";
}

TEST(StreamingProvider, APromptNeedsNoMoreSlotsThanTwo) {
  Runner runner(options_with(slots(2)));
  EXPECT_EQ(runner.run_passes(2, 100, kGrid.experts), 0);
}

TEST(StreamingProvider, APromptLeavesTheCacheAsItIs) {
  StreamingOptions options = options_with(slots(16));
  options.predictor = "none";
  Runner runner(options);
  for (int pass = 0; pass < 10; ++pass)
    for (int64_t layer = 0; layer < kGrid.layers; ++layer) runner.run_layer(layer, {0, 1, 2}, 1);
  const int64_t misses = runner.provider.counters().misses;
  for (int64_t layer = 0; layer < kGrid.layers; ++layer) {
    const std::vector<int32_t> experts = {3, 4, 5, 6, 7, 8, 9, 10, 11};
    runner.run_layer(layer, experts, 99);
  }
  for (int64_t layer = 0; layer < kGrid.layers; ++layer) runner.run_layer(layer, {0, 1, 2}, 1);
  EXPECT_EQ(runner.provider.counters().misses, misses + kGrid.layers * 9);
}

TEST(StreamingProvider, AFailedReadFailsItsLayerAndTheNextGoesOn) {
  Runner runner(options_with(slots(6)), {.error = 0.05, .delay = 0.2, .seed = 4});
  const int64_t failed = runner.run_passes(30);
  EXPECT_GT(failed, 0);
  EXPECT_LT(failed, 30 * kGrid.layers);
  EXPECT_NE(runner.last_error.find("Input/output error"), std::string::npos);
}

TEST(StreamingProvider, ADiskThatIsGoneIsAnErrorEachTimeNeverAHang) {
  Runner runner(options_with(slots(6)), {.fail_file_after = 20});
  EXPECT_GT(runner.run_passes(10), 5);
}

TEST(StreamingProvider, LikelyExpertsAreReadAhead) {
  StreamingOptions options = options_with(slots(6));
  options.predictor = "previous";
  options.prefetch = {.break_even = 0, .bandwidth = 1e12};
  Runner runner(options);
  for (int pass = 0; pass < 50; ++pass)
    for (int64_t layer = 0; layer < kGrid.layers; ++layer) runner.run_layer(layer, {0, 1, 2}, 1);
  const ExpertCounters counters = runner.provider.counters();
  EXPECT_GT(counters.prefetched, 20);
  EXPECT_GT(counters.prefetch_used, counters.prefetched / 2) << "the same experts every time";
}

TEST(StreamingProvider, ABudgetBelowTheLeastSaysTheLeast) {
  try {
    Runner runner(options_with(slots(2) - 1));
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("the least"), std::string::npos) << error.what();
  }
}

TEST(StreamingProvider, WrongUseIsAnErrorOfOurs) {
  Runner runner(options_with(slots(4)));
  StreamingProvider& provider = runner.provider;
  EXPECT_THROW(provider.take_ready(), Error);
  const std::vector<int32_t> experts = {1};
  provider.begin_layer(0, experts, {}, 1);
  EXPECT_THROW(provider.begin_layer(1, experts, {}, 1), Error);
  EXPECT_THROW(provider.release(0, 1), Error) << "not handed out yet";
  provider.end_layer(0);
  EXPECT_THROW(provider.end_layer(0), Error);
  StreamingOptions belady = options_with(slots(4));
  belady.policy = "belady";
  EXPECT_THROW(Runner runner(belady), UsageError);
}

TEST(SlotPlan, UsesTheBudgetAndNoMore) {
  const TestExperts experts(ExpertFiles::Form::kPanels, kGrid);
  for (int64_t count = 2; count < 60; ++count) {
    const SlotPlan plan = plan_slots(experts.files, kUsed, slots(count) + 5);
    EXPECT_LE(plan.bytes, slots(count) + 5);
    EXPECT_GE(plan.staging, 1);
    EXPECT_EQ(plan.bytes, slots(std::min<int64_t>(count, kGrid.size())));
  }
}

}  // namespace
}  // namespace cadre::engine
