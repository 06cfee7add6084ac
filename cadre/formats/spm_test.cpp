#include "cadre/formats/spm.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre {
namespace {

using spm::PieceType;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Entry {
  std::string piece;
  float score = 0;
  int32_t type = spm::kNormal;
};

/// "<unk>", "<s>", "</s>", the bytes from id 3 on, then these.
spm::Vocabulary vocabulary_with(const std::vector<Entry>& entries) {
  std::vector<Entry> all = {
      {"<unk>", 0, spm::kUnknown}, {"<s>", 0, spm::kControl}, {"</s>", 0, spm::kControl}};
  for (int byte = 0; byte < 256; ++byte)
    all.push_back({fmt::format("<0x{:02X}>", byte), 0, spm::kByte});
  all.insert(all.end(), entries.begin(), entries.end());
  spm::Vocabulary vocabulary;
  for (const Entry& entry : all) {
    vocabulary.pieces.push_back(entry.piece);
    vocabulary.scores.push_back(entry.score);
    vocabulary.types.push_back(entry.type);
  }
  return vocabulary;
}

constexpr TokenId kFirst = 259;

Tokenizer tokenizer_of(const spm::Vocabulary& v,
                       Tokenizer::BlankPrefix prefix = Tokenizer::BlankPrefix::kBeforeText) {
  return Tokenizer::from_sentencepiece(v.pieces, v.scores, v.types, prefix);
}

TEST(SentencePiece, MergesByScoreThenFromTheLeft) {
  const auto t = tokenizer_of(
      vocabulary_with({{"a", -10}, {"b", -11}, {"aa", -1}, {"ab", -2}, {"aab", -3}, {"▁", -20}}),
      Tokenizer::BlankPrefix::kNone);
  EXPECT_THAT(t.encode("aab"), ElementsAre(kFirst + 4));
  EXPECT_THAT(t.encode("aaa"), ElementsAre(kFirst + 2, kFirst)) << "the left pair first";
  EXPECT_THAT(t.encode("bab"), ElementsAre(kFirst + 1, kFirst + 3));
  EXPECT_THAT(t.encode("a b"), ElementsAre(kFirst, kFirst + 5, kFirst + 1));
  EXPECT_TRUE(t.encode("").empty());
}

TEST(SentencePiece, BlanksAreMarkedAndOneIsPutFirst) {
  const auto vocabulary = vocabulary_with({{"▁", -9}, {"▁a", -1}, {"a", -8}});
  const auto t = tokenizer_of(vocabulary);
  EXPECT_THAT(t.encode("a a"), ElementsAre(kFirst + 1, kFirst + 1));
  EXPECT_THAT(t.encode(" a"), ElementsAre(kFirst, kFirst + 1));
  const std::vector<TokenId> ids = {kFirst + 1, kFirst + 1};
  EXPECT_EQ(t.decode(ids), " a a");
  EXPECT_EQ(t.decode(ids, Tokenizer::Place::kStartOfText), "a a");
  EXPECT_THAT(tokenizer_of(vocabulary, Tokenizer::BlankPrefix::kNone).encode("a"),
              ElementsAre(kFirst + 2));
}

TEST(SentencePiece, ControlPiecesAreNoText) {
  const auto t = tokenizer_of(vocabulary_with({{"<", -1},
                                               {"s", -2},
                                               {">", -3},
                                               {"<s", -4},
                                               {"▁", -5},
                                               {"<think>", 0, spm::kUserDefined}}),
                              Tokenizer::BlankPrefix::kNone);
  EXPECT_THAT(t.encode("<s>"), ElementsAre(kFirst + 3, kFirst + 2));
  EXPECT_THAT(t.encode("<s>s", Tokenizer::SpecialTokens::kParse), ElementsAre(1, kFirst + 1));
  EXPECT_THAT(t.encode("<think>"), ElementsAre(kFirst + 5));
  EXPECT_EQ(t.end_of_text(), 2);
  EXPECT_TRUE(t.is_special(1));
  EXPECT_FALSE(t.is_special(kFirst + 5));
}

TEST(SentencePiece, WhatNoPieceCoversBecomesBytes) {
  const auto t = tokenizer_of(vocabulary_with({{"a", -1}}), Tokenizer::BlankPrefix::kNone);
  EXPECT_THAT(t.encode("é\n\xff"), ElementsAre(3 + 0xc3, 3 + 0xa9, 3 + '\n', 3 + 0xff));
  spm::Vocabulary without = {{"<unk>", "a"}, {0, -1}, {spm::kUnknown, spm::kNormal}};
  EXPECT_THAT(tokenizer_of(without, Tokenizer::BlankPrefix::kNone).encode("aé"), ElementsAre(1, 0));
  without.types[0] = spm::kControl;
  EXPECT_THROW(tokenizer_of(without).encode("é"), UsageError);
}

TEST(SentencePiece, AnyBytesComeBack) {
  Random random(3);
  std::vector<Entry> entries = {{"▁", -1000}, {"a", -900}, {"b", -901}, {"é", -902}};
  for (int i = 0; i < 200; ++i) {  // pieces of known pieces
    const Entry& left = entries[random.below(entries.size())];
    const Entry& right = entries[random.below(entries.size())];
    Entry made = {left.piece + right.piece, -static_cast<float>(random.below(500))};
    const bool known = std::any_of(entries.begin(), entries.end(),
                                   [&](const Entry& entry) { return entry.piece == made.piece; });
    if (!known && made.piece.size() < 30) entries.push_back(made);
  }
  const auto t = tokenizer_of(vocabulary_with(entries));
  const auto saved = Tokenizer::parse(t.to_json(), "saved");
  for (int round = 0; round < 300; ++round) {
    std::string text;
    for (uint64_t i = 0, n = random.below(40); i < n; ++i) {
      constexpr std::string_view kParts[] = {"a", "b", " ", "é", "\n", "\xe2", "<s>", "▁"};
      text += kParts[random.below(round % 2 == 0 ? 4 : 7)];
    }
    const auto ids = t.encode(text);
    EXPECT_EQ(t.decode(ids, Tokenizer::Place::kStartOfText), text);
    EXPECT_EQ(saved.decode(ids), t.decode(ids));
  }
}

TEST(SentencePiece, LongTextsTakeTheirLengthNotItsSquare) {
  const auto t = tokenizer_of(vocabulary_with({{"a", -3}, {"aa", -2}, {"aaaa", -1}}),
                              Tokenizer::BlankPrefix::kNone);
  EXPECT_EQ(t.encode(std::string(1 << 20, 'a')).size(), size_t{1} << 18);
}

TEST(SentencePiece, SavesWhatItLoads) {
  const auto t = tokenizer_of(
      vocabulary_with({{"a", -4}, {"b", -5}, {"ab", -1}, {"abab", -2}, {"▁", -6}, {"▁a", -3}}));
  const std::string json = t.to_json();
  const auto loaded = Tokenizer::parse(json, "saved");
  EXPECT_EQ(loaded.to_json(), json);
  for (const char* text : {"ab", "abab a", "<s> ab</s>", "é"}) {
    EXPECT_EQ(loaded.encode(text), t.encode(text)) << text;
    EXPECT_EQ(loaded.encode(text, Tokenizer::SpecialTokens::kParse),
              t.encode(text, Tokenizer::SpecialTokens::kParse))
        << text;
  }
}

std::string complaint(const spm::Vocabulary& vocabulary) {
  try {
    tokenizer_of(vocabulary);
  } catch (const FormatError& error) {
    return error.what();
  }
  return "no complaint";
}

TEST(SentencePiece, RefusesBrokenVocabularies) {
  EXPECT_THAT(complaint({}), HasSubstr("empty"));
  EXPECT_THAT(complaint({{"a"}, {}, {1}}), HasSubstr("0 scores"));
  EXPECT_THAT(complaint({{"a"}, {0}, {9}}), HasSubstr("unknown type 9"));
  EXPECT_THAT(complaint({{"a"}, {0}, {spm::kByte}}), HasSubstr("must be a byte"));
  EXPECT_THAT(complaint({{"\xff"}, {0}, {1}}), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(complaint({{"a"}, {std::numeric_limits<float>::quiet_NaN()}, {1}}), HasSubstr("NaN"));
  EXPECT_THAT(complaint({{"a", "a"}, {0, 0}, {1, 1}}), HasSubstr("both \"a\""));
}

}  // namespace
}  // namespace cadre
