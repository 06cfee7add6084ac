/// cadre delta and cadre lora, as a user meets them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cadre/engine/convert_test_kit.h"
#include "cadre/formats/safetensors.h"
#include "cadre/formats/test_folder.h"
#include "tests/cli/run_program.h"

namespace cadre {
namespace {

using nlohmann::json;
using testing::HasSubstr;

void expect_one_line(const ProgramResult& result, const std::string& part) {
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_THAT(result.err, HasSubstr(part));
  EXPECT_EQ(lines_of(result.err).size(), 1u) << result.err;
  EXPECT_TRUE(result.out.empty()) << result.out;
}

/// The same checkpoint with its matrices moved a little.
void write_tuned(const std::string& from, const std::string& to) {
  std::filesystem::copy(from, to);
  const SafetensorsReader reader(from);
  std::vector<TensorSpec> specs;
  for (const auto& [name, view] : reader.tensors()) specs.push_back({name, view.dtype, view.shape});
  ShardedWriter writer(to, specs);
  for (const auto& [name, view] : reader.tensors()) {
    std::vector<float> values(view.bytes.size() / sizeof(float));
    std::memcpy(values.data(), view.bytes.data(), view.bytes.size());
    if (view.shape.size() == 2) {
      for (size_t i = 0; i < values.size(); ++i) values[i] += 0.01F * static_cast<float>(i % 7);
    }
    writer.write(name, std::as_bytes(std::span(values)));
  }
  writer.commit();
}

struct DeltaVerb : testing::Test {
  DeltaVerb() {
    engine::write_small_checkpoint(folder / "base", engine::small_config(Architecture::kOlmoe));
    write_tuned(base, tuned);
  }
  TestFolder folder;
  const std::string base = folder / "base", tuned = folder / "tuned", file = folder / "a.cdelta";
};

TEST_F(DeltaVerb, ExtractsAppliesAndRefusesAnotherBase) {
  const ProgramResult extract =
      run_cadre({"delta", "extract", tuned, file, "--base", base, "--density", "0.3", "--json"});
  ASSERT_EQ(extract.exit_code, 0) << extract.err;
  const json report = json::parse(extract.out);
  EXPECT_LE(report["kept"], 0.3 * report["parameters"].get<double>());
  const std::string out = folder / "out";
  const ProgramResult apply = run_cadre({"delta", "apply", base, out, "--delta", file});
  ASSERT_EQ(apply.exit_code, 0) << apply.err;
  EXPECT_TRUE(std::filesystem::exists(out + "/tokenizer.json"));
  EXPECT_NE(read_file(out + "/model.safetensors"), read_file(base + "/model.safetensors"));
  EXPECT_THAT(run_cadre({"delta", "info", file, file}).out, HasSubstr("1.000"));

  expect_one_line(run_cadre({"delta", "apply", tuned, folder / "no", "--delta", file}),
                  "another base");
  expect_one_line(run_cadre({"delta", "apply", base, base, "--delta", file}), "another folder");
  expect_one_line(run_cadre({"delta", "info", base + "/config.json"}), "no .cdelta file");
  expect_one_line(run_cadre({"delta", "extract", tuned, file, "--density", "2"}), "density 2");
  EXPECT_FALSE(std::filesystem::exists(folder / "no"));
}

TEST_F(DeltaVerb, AdaptersGoOutAndIn) {
  const std::string adapter = folder / "adapter", out = folder / "out";
  const ProgramResult extract =
      run_cadre({"lora", "extract", base, tuned, adapter, "--rank", "4", "--module", "q_proj"});
  ASSERT_EQ(extract.exit_code, 0) << extract.err;
  EXPECT_THAT(read_file(adapter + "/adapter_config.json"), HasSubstr("q_proj"));
  const ProgramResult merge = run_cadre({"lora", "merge", base, adapter, out});
  ASSERT_EQ(merge.exit_code, 0) << merge.err;
  EXPECT_NE(read_file(out + "/model.safetensors"), read_file(base + "/model.safetensors"));
  expect_one_line(run_cadre({"lora", "merge", base, folder / "none", out}), "adapter_config.json");
}

}  // namespace
}  // namespace cadre
