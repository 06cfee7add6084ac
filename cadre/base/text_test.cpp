#include "cadre/base/text.h"

#include <gtest/gtest.h>

namespace cadre {
namespace {

TEST(Text, DecodesValidUtf8) {
  const auto value = [](std::string_view text) { return first_code_point(text).value; };
  EXPECT_EQ(value("a"), U'a');
  EXPECT_EQ(value("é"), U'é');
  EXPECT_EQ(value("€x"), U'€');
  EXPECT_EQ(value("😀"), U'😀');
  EXPECT_EQ(first_code_point("😀").bytes, 4U);
  EXPECT_EQ(value(std::string_view("\0", 1)), U'\0');
}

TEST(Text, RejectsInvalidUtf8OneByteAtATime) {
  // Lone continuation, overlong forms, surrogate, beyond the last plane, truncated.
  for (const std::string_view text : {"\x80", "\xC0\x80", "\xE0\x80\x80", "\xF0\x80\x80\x80",
                                      "\xED\xA0\x80", "\xF4\x90\x80\x80", "\xE2\x82", "\xFF"}) {
    EXPECT_EQ(first_code_point(text).value, U'\uFFFD');
    EXPECT_EQ(first_code_point(text).bytes, 1U);
  }
}

TEST(Text, OneLineIsOneValidLine) {
  EXPECT_EQ(one_line("a\n\tb\r\n"), "a b");
  EXPECT_EQ(one_line("\n a  b"), " a  b");
  EXPECT_EQ(one_line("bad \xFFname\x1b[2J"), "bad \uFFFDname [2J");
  EXPECT_EQ(one_line("naïve 漢字"), "naïve 漢字");
  EXPECT_EQ(one_line("\uFFFD"), "\uFFFD");
  EXPECT_EQ(one_line("\n"), "");
  EXPECT_EQ(one_line(""), "");
}

TEST(Text, WidthCountsColumns) {
  EXPECT_EQ(display_width("abc"), 3U);
  EXPECT_EQ(display_width("é"), 1U);
  EXPECT_EQ(display_width("e\u0301"), 1U);
  EXPECT_EQ(display_width("漢字"), 4U);
  EXPECT_EQ(fit_width("漢字", 3), "漢");
  EXPECT_EQ(fit_width("abc", 2), "ab");
  EXPECT_EQ(fit_width("abc", 9), "abc");
  EXPECT_EQ(fit_width("abc", 0), "");
}

}  // namespace
}  // namespace cadre
