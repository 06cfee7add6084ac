#include "cadre/engine/tokenizer_from_gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/engine/convert_test_kit.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

using ::testing::HasSubstr;

GgufReader file_with(const TestFolder& folder, const GgufKeys& keys) {
  GgufWriter(folder / "a.gguf", keys, {}).commit();
  return GgufReader(folder / "a.gguf");
}

TEST(TokenizerFromGguf, ByteLevelThereAndBack) {
  const TestFolder folder;
  const Tokenizer tokenizer = small_tokenizer();
  GgufKeys keys;
  add_tokenizer_keys(keys, tokenizer_lists_of(tokenizer.to_json(), "test"));
  const GgufReader file = file_with(folder, keys);
  EXPECT_EQ(tokenizer_from_gguf(file, "test").to_json(), tokenizer.to_json());
  EXPECT_FALSE(special_token_ids(file, "test").add_begin);
}

TEST(TokenizerFromGguf, SentencePieceThereAndBack) {
  const TestFolder folder;
  const auto tokenizer = Tokenizer::from_sentencepiece(
      {"<unk>", "<s>", "</s>", "<0x0A>", "\xe2\x96\x81", "a", "aa"}, {0, 0, 0, 0, -3, -2, -1},
      {2, 3, 3, 6, 1, 1, 1}, Tokenizer::BlankPrefix::kBeforeText);
  GgufKeys keys;
  add_tokenizer_keys(keys, tokenizer_lists_of(tokenizer.to_json(), "test"));
  keys.add("tokenizer.ggml.bos_token_id", uint32_t{1});
  keys.add("tokenizer.ggml.eos_token_id", UINT32_MAX);
  const GgufReader file = file_with(folder, keys);
  EXPECT_EQ(tokenizer_from_gguf(file, "test").to_json(), tokenizer.to_json());
  const SpecialTokenIds ids = special_token_ids(file, "test");
  EXPECT_EQ(ids.begin_of_text, 1);
  EXPECT_EQ(ids.end_of_text, -1);
  EXPECT_TRUE(ids.add_begin) << "as llama.cpp has it for this model";
}

TEST(TokenizerFromGguf, EveryWayOfCuttingHasAName) {
  for (const auto kind :
       {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kQwen2,
        PreTokenizer::kDeepseekCoder, PreTokenizer::kDeepseekLlm, PreTokenizer::kDeepseekV3,
        PreTokenizer::kGpt4o, PreTokenizer::kStarcoder}) {
    EXPECT_EQ(pre_tokenizer_named(name_of(kind)), kind);
    const std::vector<std::string_view> texts = {"a text, a text"};
    const auto tokenizer =
        Tokenizer::train(texts, {.vocabulary = 260, .pre_tokenizer = kind, .min_frequency = 1});
    EXPECT_EQ(tokenizer_lists_of(tokenizer.to_json(), "test").pre, name_of(kind));
  }
  EXPECT_EQ(pre_tokenizer_named("unheard of"), std::nullopt);
}

TEST(TokenizerFromGguf, ComplaintsNameTheKey) {
  const TestFolder folder;
  const auto complaint = [&](const std::function<void(GgufKeys&)>& change) {
    GgufKeys keys;
    add_tokenizer_keys(keys, tokenizer_lists_of(small_tokenizer().to_json(), "test"));
    change(keys);
    const GgufReader file = file_with(folder, keys);
    try {
      tokenizer_from_gguf(file, "test.gguf");
      special_token_ids(file, "test.gguf");
    } catch (const FormatError& error) {
      return std::string(error.what());
    }
    return std::string("no complaint");
  };
  const auto replace = [](const char* key, auto value) {
    return [=](GgufKeys& keys) {
      keys.remove(key);
      keys.add(key, value);
    };
  };
  EXPECT_THAT(complaint([](GgufKeys& keys) { keys.remove("tokenizer.ggml.model"); }),
              HasSubstr("tokenizer.ggml.model"));
  EXPECT_THAT(complaint(replace("tokenizer.ggml.model", "bert")), HasSubstr("\"bert\""));
  EXPECT_THAT(complaint(replace("tokenizer.ggml.pre", "strange")), HasSubstr("\"strange\""));
  EXPECT_THAT(complaint([](GgufKeys& keys) { keys.remove("tokenizer.ggml.merges"); }),
              HasSubstr("tokenizer.ggml.merges"));
  EXPECT_THAT(complaint([](GgufKeys& keys) {
                const std::vector<int32_t> few = {1};
                keys.remove("tokenizer.ggml.token_type");
                keys.add("tokenizer.ggml.token_type", std::span<const int32_t>(few));
              }),
              HasSubstr("1 entries for 280 tokens"));
  EXPECT_THAT(complaint([](GgufKeys& keys) { keys.add("tokenizer.ggml.eos_token_id", 5000u); }),
              HasSubstr("outside the 280 tokens"));
}

}  // namespace
}  // namespace cadre::engine
