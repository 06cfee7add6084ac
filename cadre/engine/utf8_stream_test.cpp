#include "cadre/engine/utf8_stream.h"

#include <gtest/gtest.h>

#include "cadre/base/random.h"
#include "cadre/formats/utf8.h"

namespace cadre::engine {
namespace {

TEST(Utf8Stream, HoldsBackAnUnfinishedCharacter) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.push("\xA6"), "");
  EXPECT_EQ(stream.push("\x8A!"), "\xF0\x9F\xA6\x8A!");
  EXPECT_EQ(stream.push("\xC3"), "");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, StrayBytesAreReplacedOneByOne) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\x80 \xFF\xC3(\uFFFD"), "\uFFFD \uFFFD\uFFFD(\uFFFD");
}

TEST(Utf8Stream, TextIsValidAndDoesNotDependOnTheCuts) {
  const std::string_view alphabet = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\xA6\x8A\x80\xFF";
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    std::string bytes;
    for (uint64_t i = random.below(24); i > 0; --i)
      bytes += alphabet[random.below(alphabet.size())];
    Utf8Stream whole, cut;
    std::string expected = whole.push(bytes);
    expected += whole.finish();
    std::string text;
    for (size_t at = 0; at < bytes.size();) {
      const size_t size = 1 + random.below(4);
      const std::string piece = cut.push(std::string_view(bytes).substr(at, size));
      EXPECT_EQ(find_invalid_utf8(piece), -1);
      text += piece;
      at += size;
    }
    EXPECT_EQ(text + cut.finish(), expected);
    EXPECT_EQ(find_invalid_utf8(expected), -1);
  }
}

}  // namespace
}  // namespace cadre::engine
