/// cadre reshape and cadre merge, as a user meets them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cadre/engine/convert_test_kit.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"
#include "cadre/reshape/test_checkpoints.h"
#include "tests/cli/run_program.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class ReshapeVerbs : public ::testing::Test {
 protected:
  void SetUp() override {
    engine::write_small_checkpoint(folder_ / "a", engine::small_config(Architecture::kOlmoe));
    reshape::write_checkpoint(folder_ / "x", reshape::dense_model(DType::kF32, 1),
                              reshape::dense_config());
    reshape::write_checkpoint(folder_ / "y", reshape::dense_model(DType::kF32, 2),
                              reshape::dense_config());
  }
  std::string at(const std::string& name) const { return folder_ / name; }
  void expect_one_line(const std::vector<std::string>& arguments, const std::string& part) {
    const ProgramResult result = run_cadre(arguments);
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_THAT(result.err, HasSubstr(part));
    EXPECT_TRUE(result.out.empty()) << result.out;
    EXPECT_FALSE(std::filesystem::exists(folder_ / "bad"));
  }
  TestFolder folder_;
};

TEST_F(ReshapeVerbs, AModelMergedWithItselfIsTheModelAndReadsAsWell) {
  write_file(folder_ / "text", "the quick brown fox jumps over the lazy dog");
  const ProgramResult result =
      run_cadre({"merge", at("a"), at("a"), "--out", at("out"), "--text", at("text"), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_EQ(reshape::bytes_in(folder_ / "out"), reshape::bytes_in(folder_ / "a"));
  EXPECT_EQ(report["before"], report["after"]);
  EXPECT_GT(report["before"]["perplexity"], 1);
  EXPECT_LT(report["after"]["active"], report["after"]["parameters"]);
  EXPECT_GT(report["after"]["experts"], 0);
}

TEST_F(ReshapeVerbs, FlagsAYamlFileAndAPlanSayTheSame) {
  const ProgramResult flags =
      run_cadre({"merge", at("x"), at("y"), "--method", "ties", "--base", at("x"), "--weight",
                 "0.7", "--density", "0.5", "--out", at("flags")});
  ASSERT_EQ(flags.exit_code, 0) << flags.err;
  EXPECT_THAT(flags.out, HasSubstr("parameters"));
  write_file(folder_ / "merge.yaml",
             "merge_method: ties\nbase_model: " + at("x") + "\nmodels:\n  - model: " + at("x") +
                 "\n  - model: " + at("y") + "\nparameters: {weight: 0.7, density: 0.5}\n");
  const ProgramResult yaml = run_cadre({"merge", at("merge.yaml"), "--out", at("yaml")});
  ASSERT_EQ(yaml.exit_code, 0) << yaml.err;
  write_file(folder_ / "plan.toml",
             "[[step]]\nop = \"merge\"\nmerge_method = \"ties\"\n" + ("base_model = \"" + at("x")) +
                 "\"\nmodels = [{model = \"" + at("x") + "\"}, {model = \"" + at("y") +
                 "\"}]\nparameters = {weight = 0.7, density = 0.5}\n");
  const ProgramResult plan = run_cadre({"reshape", at("plan.toml"), "--out", at("plan")});
  ASSERT_EQ(plan.exit_code, 0) << plan.err;
  const auto expected = reshape::bytes_in(folder_ / "flags");
  EXPECT_EQ(reshape::bytes_in(folder_ / "yaml"), expected);
  EXPECT_EQ(reshape::bytes_in(folder_ / "plan"), expected);
}

TEST_F(ReshapeVerbs, GgufFilesGoInAndOut) {
  const std::string gguf = at("a.gguf");
  ASSERT_EQ(run_cadre({"convert", at("a"), gguf}).exit_code, 0);
  const ProgramResult result = run_cadre({"merge", gguf, at("a"), "--out", at("out.gguf")});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  ASSERT_EQ(run_cadre({"convert", at("out.gguf"), at("back")}).exit_code, 0);
  EXPECT_EQ(reshape::bytes_in(folder_ / "back"), reshape::bytes_in(folder_ / "a"));
}

TEST_F(ReshapeVerbs, SaysWhatIsWrongInOneLine) {
  expect_one_line({"merge", at("x"), at("y"), "--method", "tis", "--out", at("bad")},
                  "did you mean ties?");
  expect_one_line({"merge", at("x"), at("none"), "--out", at("bad")}, "no such file");
  expect_one_line({"merge", at("x"), at("a"), "--out", at("bad")}, "tensor");
  expect_one_line({"merge", at("x"), at("y"), "--parameter", "t", "--out", at("bad")},
                  "NAME=VALUE");
  expect_one_line({"merge", at("x"), at("y"), "--memory", "1KiB", "--out", at("bad")},
                  "raise --memory");
  expect_one_line({"merge", at("x"), at("y"), "--out", at("y")}, "is read by this plan");
  write_file(folder_ / "plan.toml", "[[step]]\nop = \"coppy\"\ninputs = [\"x\"]\n");
  expect_one_line({"reshape", at("plan.toml"), "--out", at("bad")}, "did you mean copy?");
}

TEST_F(ReshapeVerbs, CompressKeepsToItsBytesAndTheModelRuns) {
  write_file(folder_ / "text", "the quick brown fox jumps over the lazy dog");
  const int64_t budget = 90000;
  const ProgramResult result =
      run_cadre({"compress", at("a"), "--to-bytes", std::to_string(budget), "--out",
                 at("small.gguf"), "--text", at("text"), "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  EXPECT_LE(std::filesystem::file_size(folder_ / "small.gguf"), static_cast<uint64_t>(budget));
  const json report = json::parse(result.out);
  EXPECT_LT(report["total"]["bytes_after"], report["total"]["bytes_before"]);
  EXPECT_LT(report["total"]["relative_error"], 0.2);
  EXPECT_GT(report["perplexity"]["after"], 1);
}

TEST_F(ReshapeVerbs, CompressSaysTheLeastAndLeavesNothing) {
  expect_one_line({"compress", at("a"), "--to-bytes", "1000", "--out", at("bad.gguf")},
                  "are the least");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "bad.gguf"));
  expect_one_line({"compress", at("a"), "--to-bytes", "much", "--out", at("bad.gguf")}, "much");
  expect_one_line({"compress", at("a"), "--to-bytes", "1MiB", "--out", at("bad")}, ".gguf");
  expect_one_line(
      {"compress", at("a"), "--to-bytes", "1MiB", "--rank", "4", "--out", at("bad.gguf")},
      "--rank");
}

}  // namespace
}  // namespace cadre
