#include "cadre/training/generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cadre/training/test_kit.h"

namespace cadre {
namespace {

using testing::HasSubstr;

std::vector<int> histogram(const std::vector<float>& logits, const SamplingOptions& options) {
  Random random(options.seed);
  std::vector<int> counts(logits.size());
  for (int i = 0; i < 10000; ++i) ++counts[sample_token(logits, options, random)];
  return counts;
}

TEST(SampleToken, ZeroTemperatureTakesTheLargestOfLowestId) {
  Random random(1);
  const std::vector<float> logits = {1, 3, 3, 2};
  EXPECT_EQ(sample_token(logits, {.temperature = 0}, random), 1);
}

TEST(SampleToken, DrawsByProbability) {
  const std::vector<float> logits = {std::log(0.5F), std::log(0.3F), std::log(0.2F)};
  const auto counts = histogram(logits, {.temperature = 1, .top_p = 1});
  EXPECT_NEAR(counts[0], 5000, 200);
  EXPECT_NEAR(counts[1], 3000, 200);
  const auto sharper = histogram(logits, {.temperature = 0.5, .top_p = 1});
  EXPECT_NEAR(sharper[0], 10000 * 0.25 / 0.38, 200);
}

TEST(SampleToken, TopKAndTopPCutTheTail) {
  const std::vector<float> logits = {std::log(0.2F), std::log(0.5F), std::log(0.3F)};
  const auto two = histogram(logits, {.temperature = 1, .top_k = 2, .top_p = 1});
  EXPECT_EQ(two[0], 0);
  EXPECT_NEAR(two[1], 6250, 200);
  EXPECT_EQ(histogram(logits, {.temperature = 1, .top_k = 1, .top_p = 1})[1], 10000);
  EXPECT_EQ(histogram(logits, {.temperature = 1, .top_p = 0.7})[0], 0);
  EXPECT_EQ(histogram(logits, {.temperature = 1, .top_p = 0.4})[1], 10000);
  EXPECT_EQ(histogram(logits, {.temperature = 1, .top_p = 1e-9})[1], 10000) << "never none";
}

TEST(SampleToken, RefusesWhatIsNotFinite) {
  Random random(1);
  for (const double temperature : {0.0, 1.0}) {
    EXPECT_THROW(sample_token(std::vector<float>{0, NAN}, {.temperature = temperature}, random),
                 Error);
  }
}

class GenerateTest : public testing::Test {
 protected:
  Tokenizer tokenizer_ = byte_tokenizer();
  LanguageModel model_{tiny_deepseek(), 1};
};

TEST_F(GenerateTest, IsAFunctionOfTheSeed) {
  const auto make = [&](uint64_t seed) {
    return generate(model_, tokenizer_, "abc", {.tokens = 20, .temperature = 1, .seed = seed});
  };
  EXPECT_EQ(make(1), make(1));
  EXPECT_NE(make(1), make(2));
}

TEST_F(GenerateTest, GreedyFollowsTheLogits) {
  std::string text = "abc";
  for (int i = 0; i < 5; ++i) {
    const auto encoded = tokenizer_.encode(text);
    const std::vector<int64_t> ids(encoded.begin(), encoded.end());
    const torch::Tensor logits = model_.logits(torch::tensor(ids).unsqueeze(0))[0][-1];
    const auto next = static_cast<TokenId>(logits.argmax().item<int64_t>());
    text += tokenizer_.decode(std::span(&next, 1));
  }
  EXPECT_EQ("abc" + generate(model_, tokenizer_, "abc", {.tokens = 5, .temperature = 0}), text);
}

/// Makes a model that answers each byte of `phrase` with the next one: the embedding says where the
/// phrase stands, the output matrix asks for what follows.
void recite(LanguageModel& model, const std::vector<TokenId>& phrase) {
  const torch::NoGradGuard no_grad;
  for (auto& [name, weight] : model.named_weights()) {
    if (name.find("norm") == std::string::npos) weight.zero_();
  }
  const int64_t width = model.config().hidden;
  torch::Tensor head = model.decoder()->output_weight();
  for (size_t i = 0; i + 1 < phrase.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    ASSERT_LT(at, width);
    model.decoder()->embed_tokens->weight[phrase[i]][at] = 1;
    head[phrase[i + 1]][at] = 1;
  }
}

TEST_F(GenerateTest, StreamsWholeCharacters) {
  const std::string phrase = "aü€😀b";
  recite(model_, tokenizer_.encode(phrase));
  std::vector<std::string> pieces;
  const std::string text = generate(model_, tokenizer_, "a", {.tokens = 10, .temperature = 0},
                                    [&](std::string_view piece) { pieces.emplace_back(piece); });
  EXPECT_EQ(text, phrase.substr(1));
  EXPECT_THAT(pieces, testing::ElementsAre("ü", "€", "😀", "b"));
}

TEST_F(GenerateTest, ACutCharacterComesAtTheEnd) {
  recite(model_, tokenizer_.encode("aü€😀b"));
  std::vector<std::string> pieces;
  const std::string text = generate(model_, tokenizer_, "a", {.tokens = 4, .temperature = 0},
                                    [&](std::string_view piece) { pieces.emplace_back(piece); });
  EXPECT_THAT(pieces, testing::ElementsAre("ü", "\xE2\x82"));
  EXPECT_EQ(text, "ü\xE2\x82");
}

TEST_F(GenerateTest, StopsAtTheContextAndAtTheEndOfText) {
  const std::string prompt(60, 'a');
  EXPECT_LE(generate(model_, tokenizer_, prompt, {.tokens = 50, .temperature = 1}).size(), 4U);
  EXPECT_EQ(generate(model_, tokenizer_, std::string(64, 'a'), {.tokens = 5}), "");
  ModelConfig config = tiny_llama();
  LanguageModel model(config, 1);
  const std::string one = generate(model, tokenizer_, "a", {.tokens = 1, .temperature = 0});
  config.end_of_text = tokenizer_.encode(one).front();
  LanguageModel stopping(config, 1);
  EXPECT_EQ(generate(stopping, tokenizer_, "a", {.tokens = 9, .temperature = 0}), "");
}

TEST_F(GenerateTest, NeverDrawsIdsThatTheTokenizerDoesNotHave) {
  ModelConfig config = tiny_llama();
  config.vocabulary = 5000;
  LanguageModel padded(config, 1);
  EXPECT_NO_THROW(generate(padded, tokenizer_, "a", {.tokens = 30, .temperature = 9, .top_p = 1}));
}

TEST_F(GenerateTest, BadInputIsNamed) {
  const auto error = [&](std::string_view prompt, const SamplingOptions& options) {
    return message_of<UsageError>([&] { generate(model_, tokenizer_, prompt, options); });
  };
  EXPECT_THAT(error("", {}), HasSubstr("the prompt is empty"));
  EXPECT_THAT(error(std::string(65, 'a'), {}),
              HasSubstr("the prompt has 65 tokens, the model's context only 64"));
  EXPECT_THAT(error("a", {.tokens = -1}), HasSubstr("tokens is -1"));
  EXPECT_THAT(error("a", {.temperature = -0.5}), HasSubstr("temperature is -0.5"));
  EXPECT_THAT(error("a", {.temperature = NAN}), HasSubstr("temperature"));
  EXPECT_THAT(error("a", {.top_k = -2}), HasSubstr("top_k is -2"));
  EXPECT_THAT(error("a", {.top_p = 0}), HasSubstr("top_p is 0"));
  EXPECT_THAT(error("a", {.top_p = 1.5}), HasSubstr("top_p is 1.5"));
  ModelConfig small = tiny_llama();
  small.vocabulary = 100;
  LanguageModel unfit(small, 1);
  EXPECT_THAT(message_of<UsageError>([&] { generate(unfit, tokenizer_, "a", {}); }),
              HasSubstr("the tokenizer has 257 tokens"));
}

}  // namespace
}  // namespace cadre
