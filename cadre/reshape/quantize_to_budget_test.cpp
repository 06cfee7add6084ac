#include "cadre/reshape/quantize_to_budget.h"

#include <gtest/gtest.h>

#include <map>

#include "cadre/base/error.h"
#include "cadre/reshape/experts_test_kit.h"
#include "cadre/reshape/layer_stats.h"

namespace cadre::reshape {
namespace {

using engine::GgufImage;

class QuantizeToBudget : public ::testing::Test {
 protected:
  QuantizeToBudget() { write_random_model(folder_ / "model", moe_config_of(8, 2), 1); }

  GgufImage image() const { return engine::open_image(folder_ / "model"); }
  int64_t stored(const BudgetPlan& plan, const std::string& name = "small.gguf") const {
    engine::quantize_gguf(folder_ / name, plan.image, plan.types);
    return static_cast<int64_t>(std::filesystem::file_size(folder_ / name));
  }
  /// Mean bits of each expert's matrices of layer 0.
  static std::map<int64_t, double> expert_bits(const BudgetPlan& plan) {
    std::map<int64_t, double> bits;
    for (size_t i = 0; i < plan.image.tensors.size(); ++i) {
      const std::string& name = plan.image.tensors[i].name;
      for (int64_t e = 0; e < 8; ++e)
        if (name.starts_with("blk.0.ffn_") && name.ends_with(fmt::format(".{}.weight", e)))
          bits[e] += static_cast<double>(kernels::row_bytes(plan.types.types[i], 32)) / 12;
    }
    return bits;
  }

  TestFolder folder_;
};

TEST_F(QuantizeToBudget, WritesAtMostTheBudgetAndNoMoreErrorForMoreBytes) {
  const int64_t least = plan_bytes(image(), 1 << 30).least_bytes;
  double before = 1e30;
  int64_t used = 0;
  for (int64_t bytes = least; bytes < 3 * least; bytes += least / 9) {
    const BudgetPlan plan = plan_bytes(image(), bytes);
    EXPECT_LE(plan.error, before) << bytes;
    EXPECT_EQ(stored(plan), plan.bytes);
    EXPECT_LE(plan.bytes, bytes);
    before = plan.error;
    used = std::max(used, plan.bytes);
  }
  EXPECT_GT(used, 2 * least);  // what is given is used
}

TEST_F(QuantizeToBudget, MixedExpertsRunInMemoryAndFromDisk) {
  // All experts work on every token, and attention is soft: no rounding changes a choice.
  Tensors tensors = random_tensors(moe_config_of(8, 8), 1);
  for (auto& [name, tensor] : tensors)
    for (float& value : tensor.second) value *= tensor.first.size() == 1 ? 1.0F : 0.3F;
  const auto model = folder_ / "soft";
  write_model(model, to_json(moe_config_of(8, 8)), tensors);
  const GgufImage soft = engine::open_image(model);
  const std::vector<float> exact = logits_of(model);
  const int64_t least = plan_bytes(soft, 1 << 30).least_bytes;
  int mixed = 0;
  for (const int64_t bytes : {least * 5 / 4, least * 3 / 2, least * 9 / 4, least * 3}) {
    const BudgetPlan plan = plan_bytes(soft, bytes);
    stored(plan);
    if (expert_bits(plan).size() == 8) ++mixed;
    const std::vector<float> small = logits_of(folder_ / "small.gguf");
    EXPECT_LT(difference(small, exact), 0.7);
    engine::ModelOptions options;
    options.threads = 1;
    options.expert_memory = int64_t{1} << 18;
    const auto streamed = engine::Model::open(folder_ / "small.gguf", options);
    engine::Session session(streamed);
    const auto tokens = some_text();
    const engine::Model::Slice slice = {&session, tokens, engine::Model::Slice::Want::kAll};
    EXPECT_EQ(streamed->forward({&slice, 1}), small);
  }
  EXPECT_GE(mixed, 2);
}

TEST_F(QuantizeToBudget, AllTheBytesThatItHasLeaveTheModelAsItIs) {
  const BudgetPlan plan = plan_bytes(image(), 1 << 30);
  stored(plan);
  EXPECT_EQ(plan.error, 0);
  // Rotary pairs stand side by side in a GGUF file: sums come in another order.
  EXPECT_LT(difference(logits_of(folder_ / "small.gguf"), logits_of(folder_ / "model")), 1e-4);
}

TEST_F(QuantizeToBudget, ExpertsThatTheRouterUsesGetMoreBits) {
  const int64_t least = plan_bytes(image(), 1 << 30).least_bytes;
  Tensors statistics;
  for (const int layer : {0, 1}) {
    statistics[stat_name(layer, kReach)] = {
        {8}, {0.9F, 0.02F, 0.02F, 0.02F, 0.01F, 0.01F, 0.01F, 0.01F}};
    statistics[stat_name(layer, kHiddenSquare)] = {{64}, std::vector<float>(64, 1.0F)};
  }
  const StatsIndex stats(write_stats(folder_ / "stats.safetensors", statistics));
  const BudgetPlan plan = plan_bytes(image(), least * 5 / 4, {.stats = &stats});
  const auto bits = expert_bits(plan);
  ASSERT_EQ(bits.size(), 8U);
  for (int64_t e = 1; e < 8; ++e) EXPECT_GE(bits.at(0), bits.at(e)) << e;
  EXPECT_GT(bits.at(0), bits.at(7));
}

TEST_F(QuantizeToBudget, ComponentsThatInputsLackDoNotCount) {
  // The one large column of each expert's gate spoils its blocks; inputs never have it.
  Tensors tensors = random_tensors(moe_config_of(8, 2), 1);
  for (auto& [name, tensor] : tensors) {
    if (name.find(".experts.") == std::string::npos || !name.ends_with("gate_proj.weight"))
      continue;
    for (size_t row = 0; row < 32; ++row) tensor.second[row * 64] = 50;
  }
  write_model(folder_ / "spoiled", to_json(moe_config_of(8, 2)), tensors);
  Tensors statistics;
  std::vector<float> squares(64, 1.0F);
  squares[0] = 0;
  for (const int layer : {0, 1}) {
    statistics[stat_name(layer, kReach)] = {{8}, std::vector<float>(8, 0.125F)};
    statistics[stat_name(layer, kHiddenSquare)] = {{64}, squares};
  }
  const StatsIndex stats(write_stats(folder_ / "stats.safetensors", statistics));
  const GgufImage spoiled = engine::open_image(folder_ / "spoiled");
  const int64_t least = plan_bytes(spoiled, 1 << 30).least_bytes;
  // Without statistics the large column hides the rest's error; with them the loss shows.
  EXPECT_GT(plan_bytes(spoiled, least, {.stats = &stats}).error,
            1.5 * plan_bytes(spoiled, least).error);
}

TEST_F(QuantizeToBudget, MergedExpertsAreStoredOnce) {
  Tensors statistics;
  for (const int layer : {0, 1}) {
    statistics[stat_name(layer, kUsage)] = {{8}, std::vector<float>(8, 0.125F)};
    std::vector<float> gram(64);
    for (int64_t e = 0; e < 8; ++e) gram[static_cast<size_t>(9 * e)] = 1;
    statistics[stat_name(layer, kLogitsGram)] = {{8, 8}, gram};
  }
  const StatsIndex stats(write_stats(folder_ / "stats.safetensors", statistics));
  reshape("merge_experts", {folder_ / "model"}, {{"experts", 4}}, folder_ / "merged", &stats);
  const BudgetPlan whole = plan_bytes(engine::open_image(folder_ / "merged"), 1 << 30);
  stored(whole, "merged.gguf");
  EXPECT_LT(difference(logits_of(folder_ / "merged.gguf"), logits_of(folder_ / "merged")), 1e-4);
  EXPECT_LT(whole.bytes, plan_bytes(image(), 1 << 30).bytes);
  const BudgetPlan again = plan_bytes(engine::open_image(folder_ / "merged.gguf"), 1 << 30);
  EXPECT_EQ(again.bytes, whole.bytes);
}

TEST_F(QuantizeToBudget, TooFewBytesAreRefusedWithTheLeast) {
  const int64_t least = plan_bytes(image(), 1 << 30).least_bytes;
  for (const int64_t bytes : {least - 1, int64_t{0}, int64_t{-5}}) {
    try {
      plan_bytes(image(), bytes);
      FAIL() << bytes;
    } catch (const UsageError& error) {
      EXPECT_NE(std::string(error.what()).find(fmt::format("{} bytes", least)), std::string::npos)
          << error.what();
    }
  }
  EXPECT_EQ(plan_bytes(image(), least).bytes, least);
}

}  // namespace
}  // namespace cadre::reshape
