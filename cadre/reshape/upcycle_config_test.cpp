#include "cadre/reshape/upcycle_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"

namespace cadre::reshape {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

const json kDocument = {{"base_model", "models/base"},
                        {"gate_mode", "cheap_embed"},
                        {"dtype", "bfloat16"},
                        {"experts_per_token", 1},
                        {"architecture", "mixtral"},
                        {"experts",
                         {{{"source_model", "models/code"}, {"positive_prompts", {"int main"}}},
                          {{"source_model", "models/base"},
                           {"positive_prompts", {"once"}},
                           {"negative_prompts", {"int"}}},
                          {{"source_model", "models/code"}, {"positive_prompts", {"#include"}}}}}};

std::string complaint(json document, const std::string& key, const json& value) {
  document[key] = value;
  try {
    parse_upcycle_config(document, "moe.yaml");
  } catch (const UsageError& error) {
    return error.what();
  }
  return "none";
}

TEST(UpcycleConfig, ReadsMergekitsDocument) {
  const UpcycleConfig config = parse_upcycle_config(kDocument, "moe.yaml");
  EXPECT_THAT(config.models, ElementsAre("models/base", "models/code"));
  const json& params = config.parameters;
  EXPECT_EQ(params["experts"], json({1, 0, 1}));
  EXPECT_EQ(params["router"], "cheap_embed");
  EXPECT_EQ(params["used"], 1);
  EXPECT_EQ(params["attention"], "0");
  EXPECT_EQ(params["to"], "mixtral");
  EXPECT_EQ(params["prompts"][2], json({"#include"}));
  EXPECT_EQ(params["negative_prompts"], json({json::array(), {"int"}, json::array()}));
}

TEST(UpcycleConfig, SaysWhatIsWrong) {
  EXPECT_THAT(complaint(kDocument, "gate_mod", "hidden"), HasSubstr("gate_mode"));
  EXPECT_THAT(complaint(kDocument, "gate_mode", "best"), HasSubstr("gate_mode is \"best\""));
  EXPECT_THAT(complaint(kDocument, "experts", json::array()), HasSubstr("experts"));
  EXPECT_THAT(complaint(kDocument, "experts", {{{"source", "a"}}}),
              HasSubstr("unknown key \"source\""));
  EXPECT_THAT(complaint(kDocument, "base_model", 3), HasSubstr("base_model"));
}

}  // namespace
}  // namespace cadre::reshape
