/// cadre convert and cadre quantize, as a user meets them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cadre/engine/convert_test_kit.h"
#include "cadre/formats/test_folder.h"
#include "tests/cli/run_program.h"
#include "tests/cli/small_gguf.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::SizeIs;

void expect_one_line(const ProgramResult& result, const std::string& part) {
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr(part));
  EXPECT_TRUE(result.out.empty()) << result.out;
}

TEST(ConvertVerb, FolderToFileToFolder) {
  const TestFolder folder;
  engine::write_small_checkpoint(folder / "in", engine::small_config(Architecture::kOlmoe));
  const std::string in = folder / "in", gguf = folder / "model.gguf", out = folder / "out";
  const ProgramResult there = run_cadre({"convert", in, gguf});
  EXPECT_EQ(there.exit_code, 0) << there.err;
  EXPECT_THAT(there.out, HasSubstr("experts"));
  const ProgramResult back = run_cadre({"convert", gguf, out, "--json"});
  EXPECT_EQ(back.exit_code, 0) << back.err;
  EXPECT_EQ(json::parse(back.out)["type"], "F32");
  for (const char* name : {"/config.json", "/tokenizer.json", "/model.safetensors"})
    EXPECT_EQ(read_file(in + name), read_file(out + name)) << name;

  expect_one_line(run_cadre({"convert", in, folder / "other"}), "end in .gguf");
  expect_one_line(run_cadre({"convert", in, gguf, "--type", "Q4_0"}), "cadre quantize");
  expect_one_line(run_cadre({"convert", folder / "none", gguf}), "no such file");
  expect_one_line(run_cadre({"convert", gguf, gguf}), "are the same");
}

TEST(QuantizeVerb, ReportsSizesErrorsAndMisfits) {
  const TestFolder folder;
  engine::write_small_checkpoint(folder / "in", engine::small_config(Architecture::kDeepseek));
  const std::string in = folder / "in", out = folder / "q.gguf";
  const ProgramResult result = run_cadre({"quantize", in, out, "--type", "Q4_K", "--role",
                                          "attn=Q8_0", "--role", "output=F16", "--json"});
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const json report = json::parse(result.out);
  EXPECT_EQ(report["roles"]["output"]["types"], json::array({"F16"}));
  EXPECT_EQ(report["roles"]["experts"]["types"], json::array({"Q4_0"}));
  EXPECT_GT(report["total"]["bytes_before"], 3 * report["total"]["bytes_after"].get<int64_t>());
  EXPECT_GT(report["roles"]["experts"]["relative_error"], 0.01);
  EXPECT_LT(report["roles"]["experts"]["relative_error"], 0.1);
  EXPECT_THAT(report["notes"].dump(), HasSubstr("do not fill blocks of Q4_K"));

  // What was quantised is a model like any other.
  EXPECT_EQ(run_cadre({"quantize", out, folder / "again.gguf", "--type", "Q8_0"}).exit_code, 0);

  expect_one_line(run_cadre({"quantize", in, out, "--type", "Q9"}), "unknown weight format");
  expect_one_line(run_cadre({"quantize", in, out, "--type", "Q5_K"}), "not written");
  expect_one_line(run_cadre({"quantize", in, out, "--role", "nose=Q8_0"}),
                  "no tensor has the role");
  expect_one_line(run_cadre({"quantize", in, folder / "no/where.gguf"}), "no/where.gguf");
}

TEST(QuantizeVerb, TakesGgufFiles) {
  const TestFolder folder;
  write_small_gguf(folder / "in.gguf");
  const ProgramResult result = run_cadre({"quantize", folder / "in.gguf", folder / "out.gguf"});
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("wrote"));
}

}  // namespace
}  // namespace cadre
