#include "cadre/reshape/upcycle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/reshape/experts_test_kit.h"
#include "cadre/reshape/prompt_router.h"

namespace cadre::reshape {
namespace {

using ::testing::HasSubstr;

class Upcycle : public ::testing::Test {
 protected:
  Upcycle() {
    const ModelConfig dense = engine::small_config(Architecture::kLlama);
    write_random_model(folder_ / "a", dense, 1);
    write_random_model(folder_ / "b", dense, 2);
  }
  std::filesystem::path upcycle(const std::vector<std::string>& inputs,
                                const nlohmann::json& params, const std::string& out = "out") {
    std::vector<std::filesystem::path> paths;
    for (const std::string& input : inputs) paths.push_back(folder_ / input);
    return reshape("upcycle", paths, params, folder_ / out);
  }
  std::string complaint(const std::vector<std::string>& inputs, const nlohmann::json& params) {
    try {
      upcycle(inputs, params, "bad");
    } catch (const UsageError& error) {
      return error.what();
    }
    return "none";
  }
  TestFolder folder_;
};

TEST_F(Upcycle, CopiesOfAModelAreTheModel) {
  const auto dense = logits_of(folder_ / "a");
  int number = 0;
  for (const char* router : {"zero", "random"}) {
    for (const char* to : {"deepseek", "mixtral"}) {
      const auto out = upcycle({"a"}, {{"copies", 4}, {"router", router}, {"to", to}},
                               "copies" + std::to_string(number++));
      EXPECT_LT(difference(logits_of(out), dense), 1e-5) << router << ", " << to;
    }
  }
}

TEST_F(Upcycle, IdenticalModelsAverageToThemselvesBitForBit) {
  const auto before = read_tensors(folder_ / "a");
  const auto after = read_tensors(upcycle({"a", "a", "a"}, {{"used", 1}}));
  for (const auto& [name, tensor] : before) {
    if (name.find("mlp.") != std::string::npos) continue;
    EXPECT_EQ(after.at(name).second, tensor.second);
  }
  EXPECT_EQ(after.at("model.layers.1.mlp.experts.2.up_proj.weight").second,
            before.at("model.layers.1.mlp.up_proj.weight").second);
}

TEST_F(Upcycle, OneExpertAtWorkIsItsModel) {
  // A router of zeros chooses the first expert.
  const nlohmann::json params = {{"used", 1},        {"router", "zero"}, {"experts", {1, 0}},
                                 {"attention", "1"}, {"norms", "1"},     {"embeddings", "1"}};
  EXPECT_LT(difference(logits_of(upcycle({"a", "b"}, params)), logits_of(folder_ / "b")), 1e-5);
}

TEST_F(Upcycle, TheLearnWingReadsTheResult) {
  const ModelConfig config = read_model_config(upcycle({"a", "b"}, {{"used", 1}}));
  EXPECT_EQ(config.architecture, Architecture::kDeepseek);
  EXPECT_EQ(config.experts, 2);
  EXPECT_EQ(config.expert_intermediate, 96);
  const auto tensors = read_tensors(folder_ / "out");
  EXPECT_EQ(expected_tensors(config).size(), tensors.size());
  for (const ExpectedTensor& tensor : expected_tensors(config)) {
    EXPECT_EQ(tensors.at(tensor.name).first, tensor.shape) << tensor.name;
  }
}

TEST_F(Upcycle, ASharedExpertAlwaysWorks) {
  const auto out = upcycle({"a", "b"}, {{"shared", 1}, {"used", 1}, {"router", "zero"}});
  const auto tensors = read_tensors(out), b = read_tensors(folder_ / "b");
  EXPECT_EQ(tensors.at("model.layers.0.mlp.shared_experts.down_proj.weight").second,
            b.at("model.layers.0.mlp.down_proj.weight").second);
  EXPECT_EQ(logits_of(out).size(), some_text().size() * 300);
}

TEST_F(Upcycle, NoiseTellsCopiesApart) {
  const auto tensors = read_tensors(upcycle({"a"}, {{"copies", 2}, {"noise", 0.1}, {"used", 1}}));
  EXPECT_NE(tensors.at("model.layers.0.mlp.experts.0.up_proj.weight").second,
            tensors.at("model.layers.0.mlp.experts.1.up_proj.weight").second);
}

TEST_F(Upcycle, RoutersOfPromptsLieWhereTheyLook) {
  const std::vector<ExpertPrompts> prompts = {{{"once upon a time"}, {}},
                                              {{"a small test"}, {"once"}}};
  const auto hidden = routers_from_prompts(folder_ / "a", prompts, PromptView::kHidden);
  const auto bare = routers_from_prompts(folder_ / "a", prompts, PromptView::kEmbedding);
  ASSERT_EQ(hidden.size(), 2U);
  for (const auto& rows : {hidden[0], hidden[1], bare[0]}) {
    ASSERT_EQ(rows.size(), 2U * 64);
    double square = 0;
    for (size_t c = 0; c < 64; ++c) square += double{rows[c]} * rows[c];
    EXPECT_NEAR(square, 1, 1e-5);
  }
  EXPECT_NE(hidden[0], hidden[1]);
  EXPECT_EQ(bare[0], bare[1]);
  const auto table = read_tensors(folder_ / "a").at("model.embed_tokens.weight").second;
  const auto tokens = engine::small_tokenizer().encode("once upon a time");
  std::vector<double> mean(64, 0);
  double length = 0;
  for (const TokenId token : tokens) {
    for (size_t c = 0; c < 64; ++c) mean[c] += table[static_cast<size_t>(token) * 64 + c];
  }
  for (const double value : mean) length += value * value;
  for (size_t c = 0; c < 64; ++c) EXPECT_NEAR(bare[0][c], mean[c] / std::sqrt(length), 1e-5);

  const auto out = upcycle({"a", "b"}, {{"router", "hidden"},
                                        {"prompts", {{"once upon a time"}, {"a small test"}}},
                                        {"negative_prompts", {nlohmann::json::array(), {"once"}}}});
  EXPECT_EQ(read_tensors(out).at("model.layers.1.mlp.gate.weight").second, hidden[1]);
}

TEST_F(Upcycle, SaysWhatIsWrong) {
  EXPECT_THAT(complaint({"a"}, {{"used", 3}}), HasSubstr("used is 3"));
  EXPECT_THAT(complaint({"a"}, {{"used", 1}, {"experts", {2}}}), HasSubstr("experts is 2"));
  EXPECT_THAT(complaint({"a", "b"}, {{"attention", "c"}}), HasSubstr("attention is \"c\""));
  EXPECT_THAT(complaint({"a", "b"}, {{"router", "hiden"}}), HasSubstr("router is \"hiden\""));
  EXPECT_THAT(complaint({"a", "b"}, {{"router", "hidden"}}), HasSubstr("prompts"));
  EXPECT_THAT(complaint({"a", "b"}, {{"to", "olmoe"}}), HasSubstr("cannot become"));
  ModelConfig other = engine::small_config(Architecture::kLlama);
  other.intermediate = 64;
  write_random_model(folder_ / "c", other, 3);
  EXPECT_THAT(complaint({"a", "c"}, nlohmann::json::object()), HasSubstr("models of one shape"));
  write_random_model(folder_ / "moe", moe_config_of(4, 2), 3);
  EXPECT_THAT(complaint({"moe"}, nlohmann::json::object()), HasSubstr("gate"));
}

}  // namespace
}  // namespace cadre::reshape
