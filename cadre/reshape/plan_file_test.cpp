#include "cadre/reshape/plan_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/formats/test_folder.h"
#include "cadre/reshape/test_checkpoints.h"
#include "cadre/reshape/yaml.h"

namespace cadre::reshape {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

auto throws(const std::string& what) { return ThrowsMessage<UsageError>(HasSubstr(what)); }

TEST(PlanFile, ReadsStepsAndChainsThem) {
  const TestFolder folder;
  for (const char* name : {"a", "b"})
    write_checkpoint(folder / name, dense_model(DType::kF32, name[0]), dense_config());
  const std::string toml = R"(
[[step]]
op = "merge"
merge_method = "linear"
models = [{model = ")" + (folder / "a").string() +
                           R"("}, {model = ")" + (folder / "b").string() + R"("}]
parameters = {weight = 0.5}

[[step]]
op = "copy"
dtype = "BF16"
)";
  const PlanFile file = parse_plan_file(toml, "plan.toml");
  ASSERT_EQ(file.steps.size(), 2);
  EXPECT_EQ(file.steps[0].inputs.size(), 2);
  EXPECT_EQ(file.steps[1].inputs, std::vector<std::string>{kPrevious});
  reshape(file, folder / "out");
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  const auto a = values_in(folder / "a", name), b = values_in(folder / "b", name);
  const auto out = values_in(folder / "out", name);
  for (size_t i = 0; i < out.size(); ++i)
    EXPECT_NEAR(out[i], (a[i] + b[i]) / 2, 0.004 * std::abs(out[i]) + 1e-6);
  EXPECT_EQ(bytes_in(folder / "out")[name].size(), out.size() * 2);
}

TEST(PlanFile, UnknownWordsAreAnsweredWithTheNearest) {
  const auto parse = [](const std::string& toml) {
    return [toml] { parse_plan_file(toml, "plan.toml"); };
  };
  EXPECT_THAT(parse("[[steps]]\nop = \"copy\""), throws("did you mean step?"));
  EXPECT_THAT(parse("[[step]]\nop = \"cpy\"\ninputs = [\"a\"]"), throws("did you mean copy?"));
  EXPECT_THAT(parse("[[step]]\nop = \"copy\"\ninputs = [\"a\"]\ndtyp = \"F32\""),
              throws("did you mean dtype?"));
  EXPECT_THAT(parse("[[step]]\nop = \"merge\"\nmerge_metod = \"ties\""),
              throws("did you mean merge_method?"));
  EXPECT_THAT(parse("[[step]]\nop = \"copy\""), throws("\"inputs\" is missing"));
  EXPECT_THAT(parse("[[step]]\nop = \"copy\"\ninputs = [\"a\"]\ndtype = 3"),
              throws("\"dtype\" must be a text"));
  EXPECT_THAT(parse("[[step]]\nop = "), throws("plan.toml:2"));
  EXPECT_THAT(parse(""), throws("no steps"));
}

TEST(Yaml, ScalarsListsAndMaps) {
  const json value = parse_yaml(
      "a: 1\nb: [0.5, -2e3, true, no, ~, text]\nc: {d: '1', e: \"yes\"}\n# comment\nf: 1_0\n", "x");
  EXPECT_EQ(value, json::parse(R"({"a": 1, "b": [0.5, -2000.0, true, false, null, "text"],
                                   "c": {"d": "1", "e": "yes"}, "f": "1_0"})"));
}

TEST(Yaml, RefusesWhatCouldHarm) {
  const auto parse = [](const std::string& text) { return [text] { parse_yaml(text, "x.yaml"); }; };
  EXPECT_THAT(parse("a: 1\na: 2\n"), throws("stands twice"));
  EXPECT_THAT(parse("a: &x 1\nb: *x\n"), throws("aliases"));
  EXPECT_THAT(parse("a: [1, 2\nb: 3"), throws("x.yaml:"));
  EXPECT_THAT(parse(std::string(100, '[') + std::string(100, ']')), throws("nested too deeply"));
  EXPECT_THAT(parse(std::string(100, '[')), throws("x.yaml:"));
  EXPECT_THAT(parse(std::string(1000000, '[')), throws("nested too deeply"));
  EXPECT_THAT(parse("[1]: 2"), throws("keys must be texts"));
  EXPECT_THAT(parse(""), throws("is empty"));
}

}  // namespace
}  // namespace cadre::reshape
