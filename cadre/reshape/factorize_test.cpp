#include "cadre/reshape/factorize.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/reshape/calibrate.h"
#include "cadre/reshape/experts_test_kit.h"
#include "cadre/reshape/layer_stats.h"

namespace cadre::reshape {
namespace {

using ::testing::HasSubstr;

class Factorize : public ::testing::Test {
 protected:
  Factorize() {
    write_random_model(folder_ / "dense", engine::small_config(Architecture::kLlama), 1);
    calibrate(folder_ / "dense", {"once upon a time there was a test", "a very small test indeed"},
              folder_ / "stats", {.threads = 1, .quantize_to = kernels::BlockType::kF32},
              {.window = 4});
  }
  std::filesystem::path factorize(const nlohmann::json& params, const std::string& out) {
    const StatsIndex stats(folder_ / "stats");
    return reshape("factorize", {folder_ / "dense"}, params, folder_ / out, &stats);
  }
  std::string complaint(const nlohmann::json& params) {
    try {
      factorize(params, "bad");
    } catch (const UsageError& error) {
      return error.what();
    }
    return "none";
  }
  TestFolder folder_;
};

TEST_F(Factorize, AllExpertsAtWorkAreTheDenseModel) {
  const auto dense = logits_of(folder_ / "dense");
  for (const char* partition : {"contiguous", "random", "kmeans", "activations"}) {
    const auto out =
        factorize({{"experts", 4}, {"used", 4}, {"partition", partition}, {"seed", 3}}, partition);
    EXPECT_LT(difference(logits_of(out), dense), 1e-5) << partition;
    const auto half = factorize({{"experts", 4}, {"used", 2}, {"partition", partition}},
                                std::string("half-") + partition);
    EXPECT_GT(difference(logits_of(half), dense), 1e-3) << partition;
  }
}

TEST_F(Factorize, FuseGivesTheSameBytes) {
  const auto before = read_tensors(folder_ / "dense");
  for (const char* partition : {"contiguous", "random", "kmeans"}) {
    const std::string name = partition;
    const auto experts = factorize({{"experts", 8}, {"partition", partition}, {"seed", 5}}, name);
    const auto back =
        reshape("fuse", {experts}, nlohmann::json::object(), folder_ / (name + "-back"));
    EXPECT_EQ(read_tensors(back), before) << partition;
    EXPECT_LT(difference(logits_of(back), logits_of(folder_ / "dense")), 1e-7);
  }
}

TEST_F(Factorize, OneMaskOfAllNeuronsIsTheDenseModel) {
  const auto out =
      factorize({{"experts", 2}, {"used", 1}, {"partition", "domains"}, {"rate", 1.0}}, "domains");
  EXPECT_LT(difference(logits_of(out), logits_of(folder_ / "dense")), 1e-5);
  const auto half =
      factorize({{"experts", 2}, {"used", 1}, {"partition", "domains"}, {"rate", 0.5}}, "half");
  EXPECT_EQ(read_tensors(half).at("model.layers.0.mlp.experts.1.up_proj.weight").first,
            (std::vector<int64_t>{48, 64}));
}

TEST_F(Factorize, SaysWhatIsWrong) {
  EXPECT_THAT(complaint({{"experts", 5}}), HasSubstr("cannot be dealt out evenly to 5"));
  EXPECT_THAT(complaint({{"partition", "halves"}}), HasSubstr("partition is \"halves\""));
  EXPECT_THAT(complaint({{"experts", 3}, {"partition", "domains"}}), HasSubstr("another one"));
  EXPECT_THROW(
      reshape("factorize", {folder_ / "dense"}, {{"partition", "activations"}}, folder_ / "bad"),
      UsageError);
  write_random_model(folder_ / "moe", moe_config_of(4, 2), 3);
  EXPECT_THROW(reshape("fuse", {folder_ / "moe"}, nlohmann::json::object(), folder_ / "bad"),
               IoError);
}

TEST_F(Factorize, CalibrationCountsWhatTheTextsDo) {
  const StatsIndex stats(folder_ / "stats");
  const auto activity = layer_stat(stats, 0, kActivity, {2, 96});
  for (const double value : activity) EXPECT_GT(value, 0);
  EXPECT_EQ(stats.shape(stat_name(1, kFeatures))[0], 96);
  const auto square = layer_stat(stats, 0, kHiddenSquare, {64});
  const auto mean = layer_stat(stats, 0, kHiddenMean, {64});
  for (size_t c = 0; c < 64; ++c) EXPECT_GE(square[c] + 1e-6, mean[c] * mean[c]);
}

}  // namespace
}  // namespace cadre::reshape
