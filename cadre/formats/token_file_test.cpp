#include "cadre/formats/token_file.h"

#include <gmock/gmock.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <random>

#include "cadre/base/error.h"
#include "cadre/formats/test_folder.h"
#include "cadre/formats/token_file_layout.h"

namespace cadre {
namespace {

using testing::HasSubstr;

/// Words, numbers, code, spaces and letters of other scripts: what pre-tokenizers cut differently.
std::string random_text(uint32_t seed, size_t size) {
  const std::vector<std::string> parts = {
      "the ",     "it's", " we'll ", "  ",   "\n",   " \n\n",   "\t",    "42 ",   "1234567",
      "{",        "};\n", "...",     "é",    "漢字", "😀 ",      "x",     " word", "Word ",
      "e\u0301 ", "\xff", ", ",      "\r\n", "end",  " \u00a0", "\u2028"};
  std::mt19937 random(seed);
  std::string text;
  while (text.size() < size) text += parts[random() % parts.size()];
  return text;
}

Tokenizer trained(PreTokenizer pre_tokenizer, int64_t vocabulary = 320) {
  const std::string text = random_text(1, 20000);
  const std::vector<std::string_view> texts = {text};
  return Tokenizer::train(
      texts, {.vocabulary = vocabulary, .pre_tokenizer = pre_tokenizer, .progress = {}});
}

/// 65,537 tokens: the bytes' letters and invented words.
Tokenizer with_large_vocabulary() {
  const Tokenizer small = trained(PreTokenizer::kGpt2, 257);
  std::vector<std::string> tokens;
  for (TokenId id = 0; id < 257; ++id) tokens.push_back(small.token(id));
  while (tokens.size() < 65537) tokens.push_back(fmt::format("word{}", tokens.size()));
  return Tokenizer::from_vocabulary(tokens, {}, PreTokenizer::kGpt2, {small.end_of_text()});
}

std::vector<TokenId> ids_in(const TokenFile& file) {
  std::vector<int64_t> wide(static_cast<size_t>(file.size()));
  file.copy(0, file.size(), wide.data());
  return {wide.begin(), wide.end()};
}

std::vector<TokenId> encode_one_by_one(const Tokenizer& tokenizer,
                                       const std::vector<std::string_view>& texts) {
  std::vector<TokenId> ids;
  for (const std::string_view text : texts) {
    const std::vector<TokenId> encoded = tokenizer.encode(text);
    ids.insert(ids.end(), encoded.begin(), encoded.end());
    if (tokenizer.end_of_text() >= 0) ids.push_back(tokenizer.end_of_text());
  }
  return ids;
}

void write_plainly(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

TEST(TokenFile, HoldsTheIdsOfAllTextsInOrder) {
  const TestFolder folder;
  const Tokenizer tokenizer = trained(PreTokenizer::kGpt2);
  // Larger than several pieces, small ones that share a job, and empty ones.
  std::vector<std::string> texts = {random_text(2, 3000000), "", "tiny"};
  for (uint32_t i = 0; i < 500; ++i) texts.push_back(random_text(i, i));
  texts.push_back("");
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  double last_share = 0;
  const int64_t count = write_token_file(folder / "x", tokenizer, views, [&](double share) {
    EXPECT_GE(share, last_share);
    last_share = share;
  });
  EXPECT_EQ(last_share, 1.0);
  const TokenFile file(folder / "x");
  const std::vector<TokenId> expected = encode_one_by_one(tokenizer, views);
  ASSERT_EQ(file.size(), count);
  EXPECT_EQ(ids_in(file), expected);
  EXPECT_EQ(file.vocabulary(), tokenizer.vocabulary_size());
  EXPECT_EQ(file.tokenizer_hash(), hash_of(tokenizer));
  EXPECT_EQ(file[7], expected[7]);
  EXPECT_EQ(std::filesystem::file_size(folder / "x"),
            sizeof(TokenFileHeader) + 2 * expected.size());
}

TEST(TokenFile, UsesFourBytesForALargeVocabulary) {
  const TestFolder folder;
  const Tokenizer tokenizer = with_large_vocabulary();
  const std::vector<std::string_view> texts = {"some text", "more"};
  write_token_file(folder / "x", tokenizer, texts);
  const TokenFile file(folder / "x");
  EXPECT_EQ(ids_in(file), encode_one_by_one(tokenizer, texts));
  EXPECT_EQ(file[0], tokenizer.encode("some text")[0]);
  EXPECT_EQ(std::filesystem::file_size(folder / "x"), sizeof(TokenFileHeader) + 4u * file.size());
}

TEST(TokenFile, NoTextsGiveAnEmptyFile) {
  const TestFolder folder;
  EXPECT_EQ(write_token_file(folder / "x", trained(PreTokenizer::kGpt2), {}), 0);
  EXPECT_EQ(TokenFile(folder / "x").size(), 0);
}

TEST(TokenFile, CopyChecksItsRange) {
  const TestFolder folder;
  write_token_file(folder / "x", trained(PreTokenizer::kGpt2), {"abc"});
  const TokenFile file(folder / "x");
  std::vector<int64_t> out(100);
  file.copy(file.size(), 0, out.data());
  EXPECT_THROW(file.copy(0, file.size() + 1, out.data()), Error);
  EXPECT_THROW(file.copy(-1, 1, out.data()), Error);
  EXPECT_THROW(file.copy(INT64_MAX, INT64_MAX, out.data()), Error);
}

TEST(EncodingCut, PiecesEncodeAsTheWholeDoes) {
  for (const PreTokenizer kind : {PreTokenizer::kGpt2, PreTokenizer::kLlama3, PreTokenizer::kQwen2,
                                  PreTokenizer::kDeepseekCoder, PreTokenizer::kDeepseekLlm}) {
    const Tokenizer tokenizer = trained(kind);
    for (uint32_t seed = 0; seed < 50; ++seed) {
      const std::string text = random_text(seed, 2000);
      std::vector<TokenId> ids;
      for (std::string_view rest = text; !rest.empty();) {
        const size_t size = encoding_cut(rest, seed);
        ASSERT_GT(size, 0u);
        const std::vector<TokenId> piece = tokenizer.encode(rest.substr(0, size));
        ids.insert(ids.end(), piece.begin(), piece.end());
        rest.remove_prefix(size);
      }
      EXPECT_EQ(ids, tokenizer.encode(text)) << "pre-tokenizer " << static_cast<int>(kind);
    }
  }
}

TEST(EncodingCut, WithoutASafePlaceTheTextIsOnePiece) {
  EXPECT_EQ(encoding_cut("", 0), 0u);
  EXPECT_EQ(encoding_cut("1 2 3 4", 2), 7u);
  EXPECT_EQ(encoding_cut("漢字漢字", 3), 12u);
  EXPECT_EQ(encoding_cut("ab cd ef", 3), 5u);
  EXPECT_EQ(encoding_cut("ab", 100), 2u);
}

TEST(HashOf, TellsTokenizersApartAndIsStable) {
  const Tokenizer a = trained(PreTokenizer::kGpt2), b = trained(PreTokenizer::kGpt2, 319);
  EXPECT_EQ(hash_of(a).size(), 32u);
  EXPECT_EQ(hash_of(a), hash_of(Tokenizer::parse(a.to_json(), "a")));
  EXPECT_NE(hash_of(a), hash_of(b));
}

std::string complaint(const TestFolder& folder, TokenFileHeader header, const std::string& ids) {
  std::string bytes(reinterpret_cast<const char*>(&header), sizeof(header));
  write_plainly(folder / "x", bytes + ids);
  try {
    const TokenFile file(folder / "x");
    return "valid";
  } catch (const FormatError& error) {
    return error.what();
  }
}

TEST(TokenFile, SaysWhichFieldIsWrong) {
  const TestFolder folder;
  const std::string two("\1\0\2\0", 4);
  EXPECT_EQ(complaint(folder, {.count = 2, .vocabulary = 3}, two), "valid");
  EXPECT_EQ(complaint(folder, {}, ""), "valid");
  EXPECT_THAT(complaint(folder, {.magic = {'C', 'A', 'D'}}, ""), HasSubstr("not a token file"));
  EXPECT_THAT(complaint(folder, {.version = 2}, ""), HasSubstr("version 2"));
  EXPECT_THAT(complaint(folder, {.id_bytes = 3}, ""), HasSubstr("3 bytes per id"));
  EXPECT_THAT(complaint(folder, {.id_bytes = 0}, ""), HasSubstr("0 bytes per id"));
  EXPECT_THAT(complaint(folder, {.count = 2, .vocabulary = 2}, two),
              HasSubstr("id 2 in a vocabulary of 2"));
  EXPECT_THAT(complaint(folder, {.count = 1, .vocabulary = 3}, two), HasSubstr("counts 1 ids"));
  EXPECT_THAT(complaint(folder, {.count = UINT64_MAX, .vocabulary = 3}, two), HasSubstr("counts"));
  EXPECT_THAT(complaint(folder, {.count = (uint64_t{1} << 63) + 2, .vocabulary = 3}, two),
              HasSubstr("counts"));
  EXPECT_THAT(complaint(folder, {.count = 2, .vocabulary = uint64_t{1} << 40}, two),
              HasSubstr("impossible vocabulary"));
  EXPECT_THAT(complaint(folder, {.id_bytes = 4, .count = 1, .vocabulary = 3}, "\xff\xff\xff\xff"),
              HasSubstr("id 4294967295"));
}

TEST(TokenFile, TruncationsAndFlippedBitsAreErrorsOrValidIds) {
  const TestFolder folder;
  write_token_file(folder / "good", trained(PreTokenizer::kGpt2), {"some text to damage"});
  const std::string good = read_file(folder / "good");
  for (size_t size = 0; size < good.size(); ++size) {
    write_plainly(folder / "x", good.substr(0, size));
    EXPECT_THROW(TokenFile(folder / "x"), FormatError) << size;
  }
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::string bad = good;
    bad[bit / 8] ^= static_cast<char>(1 << bit % 8);
    write_plainly(folder / "x", bad);
    try {
      const TokenFile file(folder / "x");
      for (const TokenId id : ids_in(file)) EXPECT_LT(id, file.vocabulary());
    } catch (const FormatError&) {
    }
  }
}

}  // namespace
}  // namespace cadre
