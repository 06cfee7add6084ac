#include "cadre/formats/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"
#include "cadre/formats/utf8.h"

namespace cadre {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// A small trained tokenizer's file, to be changed by each test.
json small_document() {
  const std::vector<std::string_view> texts{"the cat and the dog and the bird, the end"};
  return json::parse(Tokenizer::train(texts, {.vocabulary = 270}).to_json());
}

Tokenizer parse(const json& document) { return Tokenizer::parse(document.dump(), "small.json"); }

std::string complaint(const json& document) {
  try {
    parse(document);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no complaint";
}

json added(int id, const std::string& content, bool special = true) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

std::vector<TokenId> encode_special(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, Tokenizer::SpecialTokens::kParse);
}

TEST(Tokenizer, RoundTripsRandomBytesAndRandomUnicode) {
  const auto tokenizer = parse(small_document());
  Random random(11);
  for (int round = 0; round < 300; ++round) {
    std::string bytes, unicode;
    for (uint64_t i = random.below(200); i > 0; --i) bytes += static_cast<char>(random.below(256));
    for (uint64_t i = random.below(100); i > 0; --i)
      unicode += utf8_of(static_cast<uint32_t>(random.below(random.below(2) ? 0x110000 : 0x3000)));
    for (const std::string& text : {bytes, unicode, bytes + unicode + bytes}) {
      ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
      ASSERT_EQ(tokenizer.decode(encode_special(tokenizer, text)), text);
    }
  }
}

TEST(Tokenizer, SpecialTokensAreParsedOnlyWhenAsked) {
  const auto tokenizer = parse(small_document());
  const std::string text = "the<|endoftext|>";
  EXPECT_EQ(encode_special(tokenizer, text).back(), tokenizer.end_of_text());
  for (const TokenId id : tokenizer.encode(text)) EXPECT_FALSE(tokenizer.is_special(id));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  EXPECT_THAT(encode_special(tokenizer, ""), IsEmpty());
}

TEST(Tokenizer, TheLongestAddedTokenWins) {
  json document = small_document();
  document["added_tokens"] = {added(270, "<a>"), added(271, "<a><b>"), added(272, "  ", false)};
  const auto tokenizer = parse(document);
  EXPECT_EQ(tokenizer.vocabulary_size(), 273);
  EXPECT_THAT(encode_special(tokenizer, "<a><b><a>  <a"),
              ElementsAre(271, 270, 272, tokenizer.id_of("<"), tokenizer.id_of("a")));
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{272}), "  ");
  EXPECT_FALSE(tokenizer.is_special(272));
}

TEST(Tokenizer, AddedTokensStripAndStandAlone) {
  json document = small_document();
  json strip = added(270, "<m>"), word = added(271, "dog");
  strip["lstrip"] = strip["rstrip"] = true;
  word["single_word"] = true;
  document["added_tokens"] = {strip, word};
  const auto tokenizer = parse(document);
  EXPECT_EQ(encode_special(tokenizer, "a \u2003<m> \nb"),
            (std::vector<TokenId>{tokenizer.id_of("a"), 270, tokenizer.id_of("b")}));
  EXPECT_THAT(encode_special(tokenizer, "dog"), ElementsAre(271));
  EXPECT_THAT(encode_special(tokenizer, "dogs"), ::testing::Not(::testing::Contains(271)));
  EXPECT_THAT(encode_special(tokenizer, "édog"), ::testing::Not(::testing::Contains(271)));
}

TEST(Tokenizer, AnAddedTokenIsItsTextAndNeverAByte) {
  json document = small_document();
  auto& vocabulary = document["model"]["vocab"];
  const int id = vocabulary["õ"];
  vocabulary.erase("õ");
  document["added_tokens"] = {added(id, "õ", false)};
  const auto tokenizer = parse(document);
  EXPECT_THAT(tokenizer.encode("õ"), ElementsAre(id)) << "found in every text: it is not special";
  EXPECT_EQ(tokenizer.decode(std::vector<TokenId>{id}), "õ");
  EXPECT_THROW(tokenizer.encode("\xf5"), UsageError) << "its letter is taken";
}

TEST(Tokenizer, NormalizesOnlyWhenTheFileSaysSo) {
  json document = small_document();
  const std::string decomposed = "e\u0301 \xff";
  EXPECT_EQ(parse(document).decode(parse(document).encode(decomposed)), decomposed);
  document["normalizer"] = {{"type", "NFC"}};
  const auto tokenizer = parse(document);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(decomposed)), "\u00e9 \xff");
}

TEST(Tokenizer, PrefixesASpaceOnlyWhenTheFileSaysSo) {
  json document = small_document();
  document["pre_tokenizer"]["add_prefix_space"] = true;
  const auto tokenizer = parse(document);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("the")), " the");
  EXPECT_EQ(tokenizer.encode("the"), tokenizer.encode(" the"));
  EXPECT_THAT(tokenizer.encode(""), IsEmpty());
}

TEST(Tokenizer, IgnoreMergesTakesWholeWords) {
  json document = small_document();
  document["model"]["vocab"]["dog"] = 270;
  EXPECT_THAT(parse(document).encode("dog"), ::testing::SizeIs(::testing::Gt(1)));
  document["model"]["ignore_merges"] = true;
  EXPECT_THAT(parse(document).encode("dog"), ElementsAre(270));
}

TEST(Tokenizer, ReadsMergesAsPairsToo) {
  json document = small_document();
  const auto expected = parse(document).encode("the cat and the dog");
  for (json& merge : document["model"]["merges"]) {
    const std::string text = merge;
    const size_t blank = text.find(' ');
    merge = {text.substr(0, blank), text.substr(blank + 1)};
  }
  EXPECT_EQ(parse(document).encode("the cat and the dog"), expected);
}

TEST(Tokenizer, SavesWhatItLoaded) {
  json document = small_document();
  document["added_tokens"].push_back(added(275, "<later>"));
  document["normalizer"] = {{"type", "NFC"}};
  document["post_processor"] = {{"type", "TemplateProcessing"}, {"single", json::array()}};
  const auto tokenizer = parse(document);
  EXPECT_EQ(json::parse(tokenizer.to_json()), document);

  const TestFolder folder;
  tokenizer.save(folder / "tokenizer.json");
  EXPECT_EQ(Tokenizer::load(folder.path()).to_json(), tokenizer.to_json());
  EXPECT_EQ(Tokenizer::load(folder / "tokenizer.json").token(275), "<later>");
  EXPECT_THROW(Tokenizer::load(folder / "missing.json"), IoError);
}

TEST(Tokenizer, KnowsItsTokens) {
  const auto tokenizer = parse(small_document());
  EXPECT_EQ(tokenizer.token(tokenizer.id_of("Ġ")), "Ġ");
  EXPECT_EQ(tokenizer.id_of("no such token"), -1);
  EXPECT_EQ(tokenizer.id_of(""), -1);
  EXPECT_FALSE(tokenizer.is_special(-1));
  EXPECT_THROW(tokenizer.token(-1), UsageError);
  EXPECT_THROW(tokenizer.decode(std::vector<TokenId>{0, 100000}), UsageError);
  EXPECT_THROW(tokenizer.decode(std::vector<TokenId>{-1}), UsageError);
}

TEST(Tokenizer, FromVocabularyChecksItsInput) {
  const auto make = [](std::vector<std::string> tokens, std::vector<std::string> merges,
                       std::vector<TokenId> special) {
    return Tokenizer::from_vocabulary(std::move(tokens), merges, PreTokenizer::kGpt2,
                                      std::move(special));
  };
  const auto tokenizer = make({"a", "b", "ab", "<s>"}, {"a b"}, {3});
  EXPECT_THAT(encode_special(tokenizer, "aba<s>"), ElementsAre(2, 0, 3));
  EXPECT_THROW(tokenizer.encode("c"), UsageError) << "no token for this byte";
  EXPECT_THROW(make({"a", "a"}, {}, {}), FormatError);
  EXPECT_THROW(make({"a", "b"}, {"a b"}, {}), FormatError);
  EXPECT_THROW(make({"a", "aa"}, {"a  a"}, {}), FormatError);
  EXPECT_THROW(make({"a"}, {}, {1}), FormatError);
  EXPECT_THROW(make({"a", ""}, {}, {}), FormatError);
  EXPECT_THROW(make({"\xff"}, {}, {}), FormatError);
}

TEST(TokenizerFile, ComplaintsNameTheFileAndTheField) {
  const struct {
    const char* pointer;
    json value;
    const char* expected;
  } cases[] = {
      {"/model/type", "Unigram", "small.json: model: type: \"Unigram\" is not supported"},
      {"/model", 7, "model: expected an object"},
      {"/model/vocab", json::array(), "model: vocab"},
      {"/model/vocab", json::object(), "model: vocab"},
      {"/model/vocab/a", "x", "model: vocab: \"a\": expected an id"},
      {"/model/vocab/a", -1, "expected an id"},
      {"/model/vocab/a", 1.5, "expected an id"},
      {"/model/vocab/a", 1e300, "expected an id"},
      {"/model/vocab/a", 2147483647, "is not below"},
      {"/model/vocab/a", 18446744073709551615u, "is not below"},
      {"/model/vocab/a", 2, "repeats"},
      {"/model/vocab/", 271, "empty token"},
      {"/model/merges", nullptr, "model: merges: expected an array"},
      {"/model/merges/0", "no pair", "\"no\", which the vocabulary lacks"},
      {"/model/merges/0", "a b", "\"ab\", which the vocabulary lacks"},
      {"/model/merges/0", "ab", "is not two tokens"},
      {"/model/merges/0", json::array({"a"}), "merges[0]: expected"},
      {"/model/merges/0", json::array({"a", 1}), "merges[0]: expected"},
      {"/model/dropout", 0.1, "model: dropout"},
      {"/model/end_of_word_suffix", "</w>", "model: end_of_word_suffix"},
      {"/model/ignore_merges", "yes", "ignore_merges: expected true or false"},
      {"/added_tokens", 1, "added_tokens: expected an array"},
      {"/added_tokens/0", "x", "added_tokens[0]: expected an object"},
      {"/added_tokens/0/id", 5, "added_tokens[0]: id 5 repeats"},
      {"/added_tokens/0/id", 1 << 30, "added_tokens[0]: id"},
      {"/added_tokens/0/content", "", "empty token"},
      {"/added_tokens/0/content", 3, "content: expected a string"},
      {"/pre_tokenizer", nullptr, "pre_tokenizer"},
      {"/pre_tokenizer/type", "Whitespace", "pre_tokenizer: type: \"Whitespace\" is not supported"},
      {"/pre_tokenizer/use_regex", 3, "use_regex: expected true or false"},
      {"/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", json::array()}}, "ByteLevel"},
      {"/normalizer", {{"type", "Lowercase"}}, "normalizer: type \"Lowercase\" is not supported"},
      {"/decoder", {{"type", "Metaspace"}}, "decoder"},
  };
  for (const auto& [pointer, value, expected] : cases) {
    json document = small_document();
    document[json::json_pointer(pointer)] = value;
    EXPECT_THAT(complaint(document), HasSubstr(expected)) << pointer << " = " << value;
  }
}

TEST(TokenizerFile, ComplaintsAboutSplits) {
  const auto with = [](const json& step) {
    json document = small_document();
    const json byte_level = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
    document["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {step, byte_level}}};
    return document;
  };
  const json regex = {{"Regex", "\\d"}}, broken = {{"Regex", "("}};
  const auto split = [](const json& pattern, const char* behavior) -> json {
    return {{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}, {"invert", false}};
  };
  EXPECT_EQ(complaint(with(split(regex, "Isolated"))), "no complaint");
  EXPECT_EQ(complaint(with({{"type", "Digits"}, {"individual_digits", true}})), "no complaint");
  EXPECT_THAT(complaint(with(split(regex, "MergedWithNext"))), HasSubstr("behavior"));
  EXPECT_THAT(complaint(with(split(broken, "Isolated"))), HasSubstr("does not compile"));
  EXPECT_THAT(complaint(with(split("x", "Isolated"))), HasSubstr("pattern: expected an object"));
  EXPECT_THAT(complaint(with({{"type", "ByteLevel"}})), HasSubstr("ByteLevel must be last"));

  json literal = with(split({{"String", "."}}, "Removed"));
  literal["pre_tokenizer"]["pretokenizers"][1]["use_regex"] = false;
  const auto tokenizer = parse(literal);
  EXPECT_EQ(tokenizer.decode(tokenizer.encode("a.b")), "ab") << "the dot is a literal";
}

TEST(TokenizerFile, TruncatedAnywhereIsOneClearError) {
  const std::string text = small_document().dump();
  for (size_t size = 0; size < text.size(); size += 97)
    EXPECT_THROW(Tokenizer::parse(text.substr(0, size), "cut.json"), FormatError) << size;
}

TEST(TokenizerFile, HostileNestingAndBinary) {
  EXPECT_THROW(Tokenizer::parse(std::string(1 << 20, '['), "deep"), FormatError);
  EXPECT_THROW(Tokenizer::parse("{\"a\":" + std::string(1 << 20, '['), "deep"), FormatError);
  EXPECT_THROW(Tokenizer::parse("\xff\xfe\x00", "binary"), FormatError);
  EXPECT_THROW(Tokenizer::parse("null", "null"), FormatError);
  EXPECT_THROW(Tokenizer::parse("[]", "array"), FormatError);
}

}  // namespace
}  // namespace cadre
