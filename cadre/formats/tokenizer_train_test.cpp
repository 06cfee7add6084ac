#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/base/random.h"
#include "cadre/formats/tokenizer.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;

Tokenizer train(const std::vector<std::string_view>& texts, TokenizerTraining options = {}) {
  return Tokenizer::train(texts, options);
}

/// Sentences over a made-up language of 300 words, the frequent ones first.
std::string made_up_text(size_t bytes) {
  Random random(7);
  std::vector<std::string> words(300);
  for (std::string& word : words)
    for (uint64_t letters = 2 + random.below(7); letters > 0; --letters)
      word += static_cast<char>('a' + random.below(26));
  std::string text;
  while (text.size() < bytes) {
    const auto rank = static_cast<size_t>(300 * random.uniform() * random.uniform());
    text += words[rank];
    text += random.below(12) == 0 ? ".\n" : " ";
  }
  return text;
}

TEST(TokenizerTrain, MergesTheMostFrequentPairFirst) {
  const auto tokenizer =
      train({"low low low lower lowest new newer"}, {.vocabulary = 261, .special_tokens = {}});
  EXPECT_EQ(tokenizer.vocabulary_size(), 261);
  // " l", "lo" (5) are level until "lo" has the lower ids; then "low", and " low".
  EXPECT_EQ(tokenizer.token(256), "lo");
  EXPECT_EQ(tokenizer.token(257), "low");
  EXPECT_EQ(tokenizer.token(258), "Ġlow");
}

TEST(TokenizerTrain, SpecialTokensComeFirstThenTheAlphabet) {
  const auto tokenizer =
      train({""}, {.vocabulary = 300, .special_tokens = {"<|endoftext|>", "<pad>"}});
  EXPECT_EQ(tokenizer.vocabulary_size(), 258) << "no text: nothing to merge";
  EXPECT_EQ(tokenizer.end_of_text(), 0);
  EXPECT_TRUE(tokenizer.is_special(1));
  EXPECT_EQ(tokenizer.token(2), "!");
  EXPECT_THAT(tokenizer.encode("a<pad>", Tokenizer::SpecialTokens::kParse),
              ElementsAre(tokenizer.id_of("a"), 1));
}

TEST(TokenizerTrain, ATextTooSmallStopsEarly) {
  const auto tokenizer = train({"aa aa"}, {.vocabulary = 4096});
  EXPECT_EQ(tokenizer.vocabulary_size(), 258) << "\"aa\" is the only pair that occurs twice";
}

TEST(TokenizerTrain, IsTheSameForAnyNumberOfThreads) {
  const std::string text = made_up_text(3'000'000);
  const int threads = num_threads();
  std::vector<std::string> files;
  for (const int count : {1, 2, 3}) {
    set_num_threads(count);
    files.push_back(train({text}, {.vocabulary = 700}).to_json());
  }
  set_num_threads(threads);
  EXPECT_EQ(files[0], files[1]);
  EXPECT_EQ(files[0], files[2]);
}

TEST(TokenizerTrain, ReadsItsOwnFileAndCompresses) {
  const std::string text = made_up_text(200'000);
  for (const auto pre_tokenizer : {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kQwen2,
                                   PreTokenizer::kDeepseekCoder, PreTokenizer::kDeepseekLlm}) {
    const auto tokenizer = train({text}, {.vocabulary = 600, .pre_tokenizer = pre_tokenizer});
    const auto ids = tokenizer.encode(text);
    EXPECT_EQ(tokenizer.decode(ids), text);
    EXPECT_LT(2 * ids.size(), text.size());
    const auto again = Tokenizer::parse(tokenizer.to_json(), "test");
    EXPECT_EQ(again.encode(text), ids);
    EXPECT_EQ(again.to_json(), tokenizer.to_json());
  }
}

TEST(TokenizerTrain, TakesAnyBytes) {
  std::string noise;
  Random random(3);
  for (int i = 0; i < 5000; ++i) noise += static_cast<char>(random.below(256));
  const auto tokenizer = train({noise, noise, "\xff\xff"}, {.vocabulary = 400});
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(noise)), noise);
}

TEST(TokenizerTrain, LongRunsStaySane) {
  const auto tokenizer =
      train({std::string(100'000, '-'), std::string(100'000, 'x')}, {.vocabulary = 2000});
  for (TokenId id = 0; id < tokenizer.vocabulary_size(); ++id)
    EXPECT_LE(tokenizer.token(id).size(), 64u);
}

TEST(TokenizerTrain, NeverLearnsASpecialToken) {
  std::string text;
  for (int i = 0; i < 50; ++i) text += " abcd abcd";
  const auto tokenizer = train({text}, {.vocabulary = 400, .special_tokens = {"abcd"}});
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("abcd")), "abcd");
  for (const TokenId id : tokenizer.encode(text)) EXPECT_NE(id, 0);
}

TEST(TokenizerTrain, ReportsProgress) {
  std::vector<double> seen;
  train({"some text some text"}, {.progress = [&](double share) { seen.push_back(share); }});
  ASSERT_FALSE(seen.empty());
  EXPECT_TRUE(std::is_sorted(seen.begin(), seen.end()));
  EXPECT_EQ(seen.back(), 1.0);
}

TEST(TokenizerTrain, RejectsImpossibleOptions) {
  EXPECT_THROW(train({"x"}, {.vocabulary = 256}), UsageError);
  EXPECT_THROW(train({"x"}, {.vocabulary = -1}), UsageError);
  EXPECT_THROW(train({"x"}, {.special_tokens = {""}}), UsageError);
  EXPECT_THROW(train({"x"}, {.special_tokens = {"a"}}), UsageError);
  EXPECT_THROW(train({"x"}, {.special_tokens = {"<s>", "<s>"}}), UsageError);
  EXPECT_THROW(train({"x"}, {.special_tokens = {"\xff"}}), UsageError);
}

}  // namespace
}  // namespace cadre
