#include "cadre/formats/utf8.h"

#include <gtest/gtest.h>

namespace cadre {
namespace {

TEST(Utf8, FindsTheFirstInvalidByte) {
  EXPECT_EQ(find_invalid_utf8(""), -1);
  EXPECT_EQ(find_invalid_utf8("plain ascii, longer than eight"), -1);
  EXPECT_EQ(find_invalid_utf8("aé漢😀\xEF\xBF\xBD"), -1);
  EXPECT_EQ(find_invalid_utf8("0123456789\xff"), 10);
  EXPECT_EQ(find_invalid_utf8("ab\xC0\x80"), 2) << "overlong";
  EXPECT_EQ(find_invalid_utf8("\xE0\x80\x80"), 0) << "overlong";
  EXPECT_EQ(find_invalid_utf8("\xED\xA0\x80"), 0) << "surrogate";
  EXPECT_EQ(find_invalid_utf8("\xF4\x90\x80\x80"), 0) << "beyond U+10FFFF";
  EXPECT_EQ(find_invalid_utf8("a\xE6\xBC"), 1) << "cut short";
}

TEST(Utf8, EveryCodePointGoesThereAndBack) {
  for (uint32_t code = 0; code < 0x110100; ++code) {
    const std::string text = utf8_of(code);
    const bool exists = code < 0x110000 && (code < 0xD800 || code >= 0xE000);
    ASSERT_EQ(!text.empty(), exists) << code;
    if (!exists) continue;
    ASSERT_EQ(find_invalid_utf8(text), -1) << code;
    ASSERT_EQ(utf8_length(text), text.size()) << code;
  }
}

TEST(Utf8, BoundarySplitsNoCharacter) {
  const std::string text = "aé漢😀";
  const size_t expected[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 10};
  for (size_t offset = 0; offset < std::size(expected); ++offset) {
    EXPECT_EQ(utf8_boundary(text, offset), expected[offset]);
  }
}

}  // namespace
}  // namespace cadre
