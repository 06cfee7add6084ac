#include "cadre/engine/stop_strings.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::engine {
namespace {

TEST(StopStrings, NoneLetsEverythingThrough) {
  StopStrings none({});
  EXPECT_EQ(none.push("any\n"), "any\n");
  EXPECT_FALSE(none.stopped());
}

TEST(StopStrings, HoldsBackWhatMayBecomeOne) {
  StopStrings stops({"\n\nUser:"});
  EXPECT_EQ(stops.push("yes\n"), "yes");
  EXPECT_EQ(stops.push("\n"), "");
  EXPECT_EQ(stops.push("\nUs"), "\n");
  EXPECT_EQ(stops.push("er"), "");
  EXPECT_FALSE(stops.stopped());
  EXPECT_EQ(stops.push(": more"), "");
  EXPECT_TRUE(stops.stopped());
  EXPECT_EQ(stops.push("never"), "");
  EXPECT_EQ(stops.finish(), "");
}

TEST(StopStrings, FalseAlarmIsShownInTheEnd) {
  StopStrings stops({"abc"});
  EXPECT_EQ(stops.push("xab"), "x");
  EXPECT_EQ(stops.finish(), "ab");
  EXPECT_FALSE(stops.stopped());
}

TEST(StopStrings, TheOneThatEndsFirstCountsThenTheLongest) {
  StopStrings first({"bcde", "cd"});
  EXPECT_EQ(first.push("abcde"), "ab");
  StopStrings longest({"c", "bc"});
  EXPECT_EQ(longest.push("abc"), "a");
}

TEST(StopStrings, BadOnesAreRefused) {
  EXPECT_THROW(StopStrings({"ok", ""}), UsageError);
  EXPECT_THROW(StopStrings({"\xFF"}), UsageError);
}

TEST(StopStrings, TextDoesNotDependOnTheCuts) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    Random random(seed);
    const auto word = [&](uint64_t most) {
      std::string text;
      for (uint64_t i = 1 + random.below(most); i > 0; --i) text += "ab\n"[random.below(3)];
      return text;
    };
    const std::vector<std::string> list = {word(4), word(3)};
    const std::string text = word(20);
    StopStrings whole(list), cut(list);
    std::string expected = whole.push(text), shown;
    if (!whole.stopped()) expected += whole.finish();
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + random.below(3);
      shown += cut.push(std::string_view(text).substr(at, size));
      at += size;
    }
    if (!cut.stopped()) shown += cut.finish();
    EXPECT_EQ(cut.stopped(), whole.stopped());
    EXPECT_EQ(shown, expected) << list[0] << '|' << list[1] << '|' << text;
  }
}

}  // namespace
}  // namespace cadre::engine
