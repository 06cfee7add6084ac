#include "cadre/formats/tokenizer_text.h"

#include <gtest/gtest.h>

#include <set>

#include "cadre/formats/utf8.h"

namespace cadre::bpe {
namespace {

TEST(TokenizerText, ValidPrefixStopsAtTheFirstBadByte) {
  EXPECT_EQ(valid_utf8_prefix(""), 0u);
  EXPECT_EQ(valid_utf8_prefix("plain ascii, long enough"), 24u);
  EXPECT_EQ(valid_utf8_prefix("aé€😀b"), 11u);
  EXPECT_EQ(valid_utf8_prefix("ab\xff"), 2u);
  EXPECT_EQ(valid_utf8_prefix("\xc0\x80"), 0u) << "overlong";
  EXPECT_EQ(valid_utf8_prefix("\xed\xa0\x80"), 0u) << "surrogate";
  EXPECT_EQ(valid_utf8_prefix("\xf4\x90\x80\x80"), 0u) << "beyond U+10FFFF";
  EXPECT_EQ(valid_utf8_prefix("12345678\xe2\x82"), 8u) << "cut short";
}

TEST(TokenizerText, LastCodePoint) {
  EXPECT_EQ(last_code_point("é€"), U'€');
  EXPECT_EQ(last_code_point("x"), U'x');
}

TEST(TokenizerText, ComposesCanonically) {
  EXPECT_EQ(nfc("e\u0301"), "\u00e9");
  EXPECT_EQ(nfc("\u212b"), "\u00c5") << "a singleton";
  EXPECT_EQ(nfc("\u1112\u1161\u11ab"), "\ud55c") << "Hangul";
  EXPECT_EQ(nfc("a\u0301\u0323"), "\u1ea1\u0301") << "marks are put in order first";
  EXPECT_EQ(nfc("\u0915\u093c"), "\u0915\u093c") << "excluded from composition";
  EXPECT_EQ(nfc("ﬁ"), "ﬁ") << "compatibility forms stay";
  EXPECT_EQ(nfc(""), "");
}

TEST(TokenizerText, SurelyNfcIsNeverWrong) {
  EXPECT_TRUE(surely_nfc("Grüße, 你好, ありがとう, Привет 🚀"));
  EXPECT_FALSE(surely_nfc("e\u0301"));
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    const std::string text = utf8_of(c);
    if (!surely_nfc(text)) continue;
    ASSERT_EQ(nfc(text), text) << std::hex << static_cast<uint32_t>(c);
    // Nor does it join a letter before it.
    for (const char* before : {"a", "\u1112", "\ud558", "\u304b", "\u0627"})
      ASSERT_EQ(nfc(before + text), before + text) << std::hex << static_cast<uint32_t>(c);
  }
}

TEST(TokenizerText, ManyCombiningMarksAreNotQuadratic) {
  std::string text = "a";
  for (int i = 0; i < 200'000; ++i) text += i % 2 ? "\u0323" : "\u0301";
  const std::string composed = nfc(text);
  EXPECT_EQ(composed.substr(0, 3), "\u1ea1");
  EXPECT_EQ(composed.size(), 3 + 2 * 199'999u);
}

TEST(TokenizerText, AlphabetWritesEveryByteAsOneLetter) {
  std::set<std::string_view> letters;
  for (int byte = 0; byte < 256; ++byte) {
    const auto letter = letter_of(static_cast<uint8_t>(byte));
    letters.insert(letter);
    EXPECT_EQ(from_letters(letter), std::string(1, static_cast<char>(byte)));
  }
  EXPECT_EQ(letters.size(), 256u);
  EXPECT_EQ(letter_of(' '), "Ġ");
  EXPECT_EQ(letter_of('\n'), "Ċ");
  EXPECT_EQ(letter_of('!'), "!");
  EXPECT_EQ(bytes_in_letter_order()[0], '!');
  EXPECT_EQ(bytes_in_letter_order()[188], 0) << "the first byte that has no printable form";
  EXPECT_EQ(to_letters("the é"), "theĠÃ©");
  EXPECT_EQ(from_letters("theĠÃ©"), "the é");
  EXPECT_EQ(from_letters("▁the"), "▁the") << "not of the alphabet: its own text";
}

}  // namespace
}  // namespace cadre::bpe
