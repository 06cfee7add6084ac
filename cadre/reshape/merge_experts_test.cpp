#include "cadre/reshape/merge_experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/reshape/align.h"
#include "cadre/reshape/calibrate.h"
#include "cadre/reshape/experts_test_kit.h"
#include "cadre/reshape/layer_stats.h"
#include "cadre/reshape/low_rank_sparse.h"

namespace cadre::reshape {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

std::string expert_name(int64_t layer, int64_t expert, const std::string& matrix) {
  return fmt::format("model.layers.{}.mlp.experts.{}.{}_proj.weight", layer, expert, matrix);
}

/// Expert 0's neurons in another order.
void make_permuted_copy(Tensors& tensors, int64_t layer, int64_t expert, uint64_t seed) {
  std::vector<int32_t> order(32);
  std::iota(order.begin(), order.end(), 0);
  Random random(seed);
  std::shuffle(order.begin(), order.end(), random);
  for (const char* matrix : {"gate", "up"}) {
    permute_rows(order, 64, tensors[expert_name(layer, 0, matrix)].second.data(),
                 tensors[expert_name(layer, expert, matrix)].second.data());
  }
  permute_columns(order, 64, tensors[expert_name(layer, 0, "down")].second.data(),
                  tensors[expert_name(layer, expert, "down")].second.data());
}

class MergeExperts : public ::testing::Test {
 protected:
  MergeExperts() {
    write_random_model(folder_ / "moe", moe_config_of(6, 2), 1);
    calibrate(folder_ / "moe", {"once upon a time there was a small test, and it was very small"},
              folder_ / "stats", {.threads = 1, .quantize_to = kernels::BlockType::kF32},
              {.window = 16});
  }
  std::filesystem::path run_op(const std::string& op, const std::string& input, const json& params,
                               const std::string& out) {
    const StatsIndex stats(folder_ / "stats");
    return reshape(op, {folder_ / input}, params, folder_ / out, &stats);
  }
  std::string complaint(const std::string& op, const std::string& input, const json& params) {
    try {
      run_op(op, input, params, "bad");
    } catch (const UsageError& error) {
      return error.what();
    }
    return "none";
  }
  TestFolder folder_;
};

TEST_F(MergeExperts, AllExpertsKeptIsTheModel) {
  for (const char* by : {"router", "outputs", "weights", "random"}) {
    const auto out = run_op("merge_experts", "moe", {{"experts", 6}, {"by", by}}, by);
    EXPECT_EQ(difference(logits_of(out), logits_of(folder_ / "moe")), 0) << by;
  }
}

TEST_F(MergeExperts, PermutedCopiesBecomeOneWithoutLoss) {
  Tensors tensors = random_tensors(moe_config_of(4, 2), 2);
  for (int64_t layer = 0; layer < 2; ++layer) {
    for (int64_t e = 1; e < 4; ++e) {
      make_permuted_copy(tensors, layer, e, static_cast<uint64_t>(10 * layer + e));
    }
  }
  write_model(folder_ / "copies", to_json(moe_config_of(4, 2)), tensors);
  const json params = {{"experts", 1}, {"by", "weights"}, {"weights", "uniform"}};
  const auto before = logits_of(folder_ / "copies");
  const auto out = reshape("merge_experts", {folder_ / "copies"}, params, folder_ / "one");
  EXPECT_LT(difference(logits_of(out), before), 1e-5);
  EXPECT_EQ(read_tensors(out).count(expert_name(0, 1, "up")), 0U);
  json unaligned = params;
  unaligned["align"] = "none";
  EXPECT_GT(difference(logits_of(reshape("merge_experts", {folder_ / "copies"}, unaligned,
                                         folder_ / "mixed")),
                       before),
            1e-2);
}

TEST_F(MergeExperts, IdenticalExpertsMergeWithoutStatistics) {
  Tensors tensors = random_tensors(moe_config_of(4, 2), 2);
  for (const char* matrix : {"gate", "up", "down"}) {
    tensors[expert_name(1, 3, matrix)] = tensors[expert_name(1, 0, matrix)];
    tensors[expert_name(1, 2, matrix)] = tensors[expert_name(1, 0, matrix)];
  }
  write_model(folder_ / "twins", to_json(moe_config_of(4, 2)), tensors);
  const auto out =
      reshape("merge_experts", {folder_ / "twins"}, {{"by", "identical"}}, folder_ / "fewer");
  const auto after = read_tensors(out);
  EXPECT_EQ(after.count(expert_name(0, 3, "up")), 1U);
  EXPECT_EQ(after.count(expert_name(1, 1, "up")), 1U);
  EXPECT_EQ(after.count(expert_name(1, 2, "up")), 0U);
  EXPECT_LT(difference(logits_of(out), logits_of(folder_ / "twins")), 1e-6);
}

TEST_F(MergeExperts, TheMapAndItsExpansionAreTheSameModel) {
  // Both picks of a token may land in one expert: it runs once with the sum of their weights.
  for (const char* budget : {"adaptive", "uniform"}) {
    const json params = {{"experts", 3}, {"budget", budget}};
    json expanded = params;
    expanded["expand"] = true;
    const auto mapped = run_op("merge_experts", "moe", params, std::string(budget));
    const auto whole = run_op("merge_experts", "moe", expanded, std::string(budget) + "-expanded");
    EXPECT_LT(difference(logits_of(mapped), logits_of(whole)), 1e-5);
    EXPECT_GT(difference(logits_of(mapped), logits_of(folder_ / "moe")), 1e-3);
    const auto before = read_tensors(folder_ / "moe"), after = read_tensors(mapped);
    EXPECT_EQ(after.at("model.layers.0.mlp.gate.weight"),
              before.at("model.layers.0.mlp.gate.weight"));
    int64_t stored = 0;
    for (const auto& [name, tensor] : after) stored += name.ends_with("up_proj.weight") ? 1 : 0;
    EXPECT_LE(stored, 6);
  }
}

TEST_F(MergeExperts, LayersMayStayAsTheyAre) {
  const auto out = run_op("merge_experts", "moe", {{"experts", 2}, {"keep_layers", {0}}}, "kept");
  const auto after = read_tensors(out);
  EXPECT_EQ(after.count(expert_name(0, 5, "up")), 1U);
  EXPECT_EQ(after.count(expert_name(1, 2, "up")), 0U);
}

TEST_F(MergeExperts, SaysWhatIsWrong) {
  EXPECT_THAT(complaint("merge_experts", "moe", json::object()), HasSubstr("experts is 0"));
  EXPECT_THAT(complaint("merge_experts", "moe", {{"experts", 7}}), HasSubstr("cannot become 7"));
  EXPECT_THAT(complaint("merge_experts", "moe", {{"experts", 2}, {"by", "taste"}}),
              HasSubstr("must be one of router"));
  EXPECT_THROW(
      reshape("merge_experts", {folder_ / "moe"}, {{"experts", 2}}, folder_ / "no-statistics"),
      UsageError);
  run_op("merge_experts", "moe", {{"experts", 2}, {"budget", "uniform"}}, "merged");
  EXPECT_THAT(complaint("merge_experts", "merged", {{"experts", 2}}), HasSubstr("merged already"));
  write_random_model(folder_ / "dense", engine::small_config(Architecture::kLlama), 1);
  EXPECT_THAT(complaint("merge_experts", "dense", {{"experts", 2}}), HasSubstr("no experts"));
}

TEST_F(MergeExperts, DamagedMapsAreRefused) {
  for (const std::vector<int32_t>& map : {std::vector<int32_t>{0, 0, 0}, {0, 0, 0, 0, 0, 9}}) {
    const std::filesystem::path bad = folder_ / ("bad" + std::to_string(map.size()));
    std::filesystem::copy(folder_ / "moe", bad);
    Tensors tensors = read_tensors(bad);
    std::vector<TensorSpec> specs;
    for (const auto& [name, tensor] : tensors) specs.push_back({name, DType::kF32, tensor.first});
    specs.push_back(
        {"model.layers.0.mlp.expert_map", DType::kI32, {static_cast<int64_t>(map.size())}});
    ShardedWriter writer(bad, specs);
    for (const auto& [name, tensor] : tensors) {
      writer.write(name, std::as_bytes(std::span(tensor.second)));
    }
    writer.write("model.layers.0.mlp.expert_map", std::as_bytes(std::span(map)));
    writer.commit();
    EXPECT_THROW(logits_of(bad), FormatError);
  }
}

TEST_F(MergeExperts, CalibrationAgreesWithTheRouter) {
  const StatsIndex stats(folder_ / "stats");
  for (int64_t layer = 0; layer < 2; ++layer) {
    const auto usage = layer_stat(stats, layer, kUsage, {6});
    const auto reach = layer_stat(stats, layer, kReach, {6});
    EXPECT_NEAR(std::accumulate(usage.begin(), usage.end(), 0.0), 1, 1e-5);
    EXPECT_NEAR(std::accumulate(reach.begin(), reach.end(), 0.0), 1, 1e-5);
    const auto gram = layer_stat(stats, layer, kLogitsGram, {6, 6});
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_GT(gram[i * 7], 0);
      for (size_t j = 0; j < 6; ++j) EXPECT_FLOAT_EQ(gram[i * 6 + j], gram[j * 6 + i]);
    }
  }
}

TEST_F(MergeExperts, PruningAnExpertThatIsNeverChosenChangesNothing) {
  // Top-1 with weights that sum to 1; expert 5's row lies between those of 0 and 1, so it never
  // wins.
  Tensors tensors = random_tensors(moe_config_of(6, 1), 4);
  for (int64_t layer = 0; layer < 2; ++layer) {
    auto& rows = tensors[fmt::format("model.layers.{}.mlp.gate.weight", layer)].second;
    for (size_t c = 0; c < 64; ++c) rows[5 * 64 + c] = 0.5F * (rows[c] + rows[64 + c]);
  }
  write_model(folder_ / "top1", to_json(moe_config_of(6, 1)), tensors);
  calibrate(folder_ / "top1", {"once upon a time there was a small test"}, folder_ / "top1-stats",
            {.threads = 1, .quantize_to = kernels::BlockType::kF32});
  const StatsIndex stats(folder_ / "top1-stats");
  EXPECT_EQ(layer_stat(stats, 0, kUsage, {6})[5], 0);
  const auto before = logits_of(folder_ / "top1");
  for (const char* by : {"hits", "reach", "loss"}) {
    // Only the number of experts that were chosen is kept, so that the choice is not arbitrary.
    Tensors forced;
    for (int64_t layer = 0; layer < 2; ++layer) {
      for (const char* what : {kUsage, kReach, kContribution}) {
        forced[stat_name(layer, what)] = {{6}, {3, 4, 5, 6, 7, 0}};
      }
    }
    write_stats(folder_ / "forced", forced);
    const StatsIndex given(folder_ / "forced");
    const auto out = reshape("prune_experts", {folder_ / "top1"}, {{"experts", 5}, {"by", by}},
                             folder_ / by, &given);
    EXPECT_EQ(difference(logits_of(out), before), 0);
  }
  EXPECT_THAT(complaint("prune_experts", "moe", {{"experts", 7}}), HasSubstr("experts is 7"));
  EXPECT_THAT(complaint("prune_experts", "moe", {{"experts", 2}, {"by", "size"}}),
              HasSubstr("must be hits, reach or loss"));
}

TEST_F(MergeExperts, LowRankExpertsRunAsTheirExpansion) {
  const auto before = read_tensors(folder_ / "moe");
  const auto out = run_op("lowrank_sparse", "moe", {{"rank", 5}, {"rows", 0.25}}, "small");
  Tensors expanded = before;
  for (auto& [name, tensor] : expanded) {
    if (name.find(".experts.") == std::string::npos) continue;
    const int64_t rows = tensor.first[0], columns = tensor.first[1];
    tensor.second = expand(factor_low_rank_sparse(rows, columns, tensor.second.data(),
                                                  {.rank = 5, .rows_kept = 0.25}));
  }
  write_model(folder_ / "expanded", to_json(moe_config_of(6, 2)), expanded);
  EXPECT_LT(difference(logits_of(out), logits_of(folder_ / "expanded")), 1e-4);
  EXPECT_GT(difference(logits_of(out), logits_of(folder_ / "moe")), 1e-3);
}

TEST_F(MergeExperts, FullRankOrAllRowsAreTheModel) {
  const auto before = logits_of(folder_ / "moe");
  EXPECT_LT(
      difference(logits_of(run_op("lowrank_sparse", "moe", {{"rank", 32}, {"rows", 0.0}}, "full")),
                 before),
      1e-4);
  EXPECT_LT(
      difference(logits_of(run_op("lowrank_sparse", "moe", {{"rank", 1}, {"rows", 1.0}}, "rows")),
                 before),
      1e-4);
  EXPECT_THAT(complaint("lowrank_sparse", "moe", {{"rank", 33}}), HasSubstr("rank is 33"));
}

TEST_F(MergeExperts, MergedThenCompressed) {
  run_op("merge_experts", "moe", {{"experts", 3}}, "merged");
  const auto out = run_op("lowrank_sparse", "merged", {{"rank", 32}, {"rows", 0.0}}, "both");
  EXPECT_LT(difference(logits_of(out), logits_of(folder_ / "merged")), 1e-4);
}

}  // namespace
}  // namespace cadre::reshape
