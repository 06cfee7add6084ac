#include "cadre/engine/memory_plan.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/engine/pack.h"
#include "cadre/engine/test_models.h"
#include "cadre/engine/test_traces.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

class MemoryPlanTest : public testing::Test {
 protected:
  MemoryPlanTest() {
    TinyModel model = tiny_model("olmoe");
    write_gguf(model, folder_ / "model.gguf", kernels::BlockType::kQ8_0);
    source_ = open_source(folder_ / "model.gguf");
    files_ = find_expert_files(*source_);
  }
  MemoryPlan plan(int64_t memory, const RouteTrace* trace = nullptr) const {
    return plan_memory(*source_, files_, {.memory = memory, .context = 128, .trace = trace});
  }
  int64_t least() const {
    try {
      plan(0);
    } catch (const UsageError& error) {
      EXPECT_NE(std::string(error.what()).find("the least"), std::string::npos) << error.what();
    }
    return plan(int64_t{1} << 40).least;
  }

  TestFolder folder_;
  std::unique_ptr<TensorSource> source_;
  ExpertFiles files_;
};

TEST_F(MemoryPlanTest, TheLeastIsEnoughAndOneByteLessIsNot) {
  const MemoryPlan tight = plan(least());
  EXPECT_LE(tight.total(), tight.budget);
  EXPECT_LT(tight.hit_rate, 1);
  EXPECT_GT(tight.stall_seconds, 0);
  EXPECT_THROW(plan(least() - 1), UsageError);
}

TEST_F(MemoryPlanTest, CountsKeysAndValuesAsTheyAreKept) {
  const MemoryPlan plain = plan(int64_t{1} << 40);
  const MemoryPlan eight = plan_memory(
      *source_, files_, {.memory = int64_t{1} << 40, .context = 128, .kv_type = KvType::kQ8});
  const ModelSpec& spec = source_->spec();
  EXPECT_EQ(plain.keys_values, 128 * spec.layers * spec.kv_heads * 4 * spec.key_width);
  EXPECT_EQ(eight.keys_values, 128 * spec.layers * spec.kv_heads * (2 * spec.key_width + 8));
  EXPECT_EQ(plain.least - eight.least, plain.keys_values - eight.keys_values);
}

TEST_F(MemoryPlanTest, MoreMemoryNeverHurtsAndTheBudgetHolds) {
  const int64_t all = plan(int64_t{1} << 40).resident;
  double hits = 0;
  for (int64_t step = 0; step <= 20; ++step) {
    const int64_t memory = least() + (all - least()) * step / 20;
    const MemoryPlan now = plan(memory);
    EXPECT_LE(now.total(), memory);
    EXPECT_GE(now.hit_rate, hits);
    hits = now.hit_rate;
  }
  EXPECT_EQ(hits, 1);
  EXPECT_EQ(plan(all).stall_seconds, 0);
}

TEST_F(MemoryPlanTest, ATraceOfTheModelReplacesTheTable) {
  const RouteTrace trace = random_trace({.layers = files_.grid.layers,
                                         .experts = files_.grid.experts,
                                         .used = source_->spec().experts_used});
  EXPECT_EQ(plan(least(), &trace).hit_source, "replay of the trace");
  const RouteTrace other = random_trace({.layers = 9, .experts = 5});
  EXPECT_THROW(plan(least(), &other), UsageError);
}

TEST_F(MemoryPlanTest, APackHasTheSameTrunk) {
  write_pack(folder_ / "model.gguf", folder_ / "model.cpk");
  const auto pack = open_source(folder_ / "model.cpk");
  EXPECT_EQ(trunk_bytes(*pack), trunk_bytes(*source_));
  EXPECT_EQ(open_expert_files(*pack).form, ExpertFiles::Form::kPanels);
  EXPECT_EQ(open_expert_files(*source_).form, ExpertFiles::Form::kRows);
}

TEST_F(MemoryPlanTest, BandwidthsAreMeasured) {
  const Bandwidths measured = measure_bandwidths(files_, 1);
  EXPECT_GT(measured.memory, 1e8);
  EXPECT_GT(measured.disk, 1e5);
}

TEST(TypicalHitRate, IsTheTableAndOneWhenAllFits) {
  EXPECT_DOUBLE_EQ(typical_hit_rate(0, 20), 0);
  EXPECT_DOUBLE_EQ(typical_hit_rate(2, 20), 0.546);
  EXPECT_DOUBLE_EQ(typical_hit_rate(3, 20), (0.546 + 0.763) / 2);
  EXPECT_DOUBLE_EQ(typical_hit_rate(20, 20), 1);
  EXPECT_DOUBLE_EQ(typical_hit_rate(3, 3), 1);
  for (double cycles = 0, before = 0; cycles < 30; cycles += 0.1) {
    EXPECT_GE(typical_hit_rate(cycles, 21.3), before);
    before = typical_hit_rate(cycles, 21.3);
  }
}

}  // namespace
}  // namespace cadre::engine
