#include "cadre/formats/tokenizer_split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/formats/tokenizer_parts.h"

namespace cadre::bpe {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> split(const std::vector<SplitRule>& rules, std::string_view text) {
  std::vector<std::string> words;
  Splitter(rules).split(text, [&](std::string_view word) { words.emplace_back(word); });
  return words;
}

std::vector<std::string> split(PreTokenizer pre_tokenizer, std::string_view text) {
  return split(read_frame(frame_of(pre_tokenizer), "test").rules, text);
}

TEST(TokenizerSplit, Gpt2) {
  EXPECT_THAT(split(PreTokenizer::kGpt2, "I've  12 cats!!\n\nOK "),
              ElementsAre("I", "'ve", " ", " 12", " cats", "!!", "\n", "\n", "OK", " "));
}

TEST(TokenizerSplit, Llama3TakesThreeDigitsAndQwen2One) {
  EXPECT_THAT(split(PreTokenizer::kLlama3, "A 1234 'LL\r\n x"),
              ElementsAre("A", " ", "123", "4", " '", "LL", "\r\n", " x"));
  EXPECT_THAT(split(PreTokenizer::kQwen2, "12 it's"), ElementsAre("1", "2", " it", "'s"));
}

TEST(TokenizerSplit, DeepseekChainsItsRules) {
  EXPECT_THAT(split(PreTokenizer::kDeepseekCoder, "int x1=12;\n中文"),
              ElementsAre("int", " x", "1", "=", "1", "2", ";", "\n", "中文"));
  EXPECT_THAT(split(PreTokenizer::kDeepseekLlm, "int 12;  "),
              ElementsAre("int", " ", "12", ";", "  "));
}

TEST(TokenizerSplit, NothingGivesNothingAndNoRulesGiveTheWhole) {
  EXPECT_THAT(split(PreTokenizer::kGpt2, ""), IsEmpty());
  EXPECT_THAT(split(std::vector<SplitRule>{}, "a b"), ElementsAre("a b"));
}

TEST(TokenizerSplit, DropsMatchesOrGaps) {
  EXPECT_THAT(split({{"\\s+", SplitRule::Drop::kMatches}}, "a  b c "), ElementsAre("a", "b", "c"));
  EXPECT_THAT(split({{"\\d", SplitRule::Drop::kGaps}}, "a1b22"), ElementsAre("1", "2", "2"));
}

TEST(TokenizerSplit, WhiteSpaceIsUnicodes) {
  EXPECT_THAT(split({{"\\s"}}, "a\u2003b"), ElementsAre("a", "\u2003", "b"));
  EXPECT_THAT(split({{"\\s"}}, "a\u180eb"), ElementsAre("a\u180eb"))
      << "no space since Unicode 6.3";
  EXPECT_THAT(split({{"[^\\S\\n]+"}}, "a \n"), ElementsAre("a", " ", "\n"));
}

TEST(TokenizerSplit, EmptyMatchesCutNothing) {
  EXPECT_THAT(split({{"x*"}}, "abxx"), ElementsAre("ab", "xx"));
  EXPECT_THAT(split({{"(?=b)"}}, "abc"), ElementsAre("abc"));
}

TEST(TokenizerSplit, RejectsWhatItCannotCompile) {
  EXPECT_THROW(split({{"("}}, "x"), FormatError);
  EXPECT_THROW(split({{"[\\p{L}&&[^a]]"}}, "x"), FormatError);
  EXPECT_THROW(split({{"\\p{Nonsense}"}}, "x"), FormatError);
}

TEST(TokenizerSplit, AnExponentialExpressionIsAnErrorAndNoHang) {
  EXPECT_THROW(split({{"(?:a|aa)+$"}}, std::string(64, 'a') + "c"), FormatError);
}

TEST(TokenizerSplit, LongRunsOfBlanksAreLinear) {
  const std::string blanks(1 << 20, ' ');
  for (const auto pre_tokenizer : {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kQwen2,
                                   PreTokenizer::kDeepseekCoder, PreTokenizer::kDeepseekLlm})
    EXPECT_FALSE(split(pre_tokenizer, blanks + "=").empty());
}

}  // namespace
}  // namespace cadre::bpe
