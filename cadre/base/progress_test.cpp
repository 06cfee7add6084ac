#include "cadre/base/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <stdexcept>
#include <thread>

#include "cadre/base/terminal.h"
#include "cadre/base/test_stream.h"

namespace cadre {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

constexpr double kNever = 1e6;

TEST(Progress, ATerminalGetsABarInPlaceAndAFinalLine) {
  TestStream stream;
  {
    Progress progress({.label = "train moe",
                       .total = 4,
                       .style = ProgressStyle::kTerminal,
                       .redraw_seconds = 0,
                       .stream = stream.file()});
    progress.field("loss", "3.21");
    progress.field("tokens/s", "12k");
    progress.field("loss", "3.10");
    progress.advance(2);
    progress.advance(2);
  }
  const std::string text = stream.text();
  EXPECT_THAT(text, HasSubstr("\r\x1b[Ktrain moe [>               ]   0% 0/4 steps"));
  EXPECT_THAT(text, HasSubstr("[========>       ]  50% 2/4 steps  loss 3.10  tokens/s 12k  ETA "));
  EXPECT_THAT(text, HasSubstr("\r\x1b[Ktrain moe done: 4 steps in "));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST(Progress, AFileGetsPlainLinesOnly) {
  TestStream stream;
  {
    Progress progress({.label = "tokenize",
                       .total = 3,
                       .unit = "files",
                       .line_seconds = 0,
                       .stream = stream.file()});
    progress.field("speed", "8 MB/s");
    for (int i = 0; i < 3; ++i) progress.advance();
  }
  const std::string text = stream.text();
  EXPECT_THAT(text, StartsWith("tokenize  33% 1/3 files  speed 8 MB/s  ETA "));
  EXPECT_THAT(text, HasSubstr("tokenize 100% 3/3 files  speed 8 MB/s\ntokenize done: 3 files in "));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_THAT(text, Not(HasSubstr("\r")));
}

TEST(Progress, IsRateLimited) {
  TestStream plain;
  TestStream bar;
  {
    Progress lines({.total = 1000000, .line_seconds = kNever, .stream = plain.file()});
    Progress redrawn({.total = 1000000,
                      .style = ProgressStyle::kTerminal,
                      .redraw_seconds = kNever,
                      .stream = bar.file()});
    for (int i = 0; i < 1000; ++i) {
      lines.advance();
      redrawn.advance();
    }
  }
  const std::string lines = plain.text();
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 1);
  const std::string drawn = bar.text();
  EXPECT_LE(std::count(drawn.begin(), drawn.end(), '\r'), 3);
}

TEST(Progress, DestroyedEarlyItSaysSo) {
  TestStream stream;
  try {
    Progress progress({.label = "train", .total = 10, .stream = stream.file()});
    progress.advance(3);
    throw std::runtime_error("stop");
  } catch (const std::runtime_error&) {
  }
  EXPECT_THAT(stream.text(), StartsWith("train stopped early: 3/10 steps in "));
}

TEST(Progress, FinishesOnce) {
  TestStream stream;
  {
    Progress progress({.label = "train", .total = 1, .line_seconds = 0, .stream = stream.file()});
    progress.finish();
    progress.advance();
    progress.finish();
  }
  const std::string text = stream.text();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1);
}

TEST(Progress, UnknownTotalCountsOnly) {
  TestStream stream;
  {
    Progress progress(
        {.label = "generate", .unit = "tokens", .line_seconds = 0, .stream = stream.file()});
    progress.advance(5);
  }
  EXPECT_THAT(stream.text(), StartsWith("generate  5 tokens  "));
  EXPECT_THAT(stream.text(), HasSubstr("generate done: 5 tokens in "));
}

TEST(Progress, HostileLabelsStayOnTheLine) {
  TestStream stream;
  Progress({.label = "a\x1b[2J\nb", .style = ProgressStyle::kPlain, .stream = stream.file()})
      .finish();
  EXPECT_THAT(stream.text(), StartsWith("a [2J b done"));
}

TEST(Progress, SilentPrintsNothing) {
  TestStream stream;
  {
    Progress progress(
        {.total = 1, .style = ProgressStyle::kSilent, .line_seconds = 0, .stream = stream.file()});
    progress.advance();
  }
  EXPECT_EQ(stream.text(), "");
}

TEST(Progress, ThreadsMayShareIt) {
  TestStream stream;
  {
    Progress progress({.total = 2000,
                       .style = ProgressStyle::kTerminal,
                       .redraw_seconds = 0,
                       .stream = stream.file()});
    std::thread other([&] {
      for (int i = 0; i < 1000; ++i) progress.advance();
    });
    for (int i = 0; i < 1000; ++i) {
      progress.advance();
      progress.field("i", std::to_string(i));
    }
    print_line(stream.file(), "a message");
    other.join();
    EXPECT_EQ(progress.done(), 2000);
  }
  EXPECT_THAT(stream.text(), HasSubstr("\r\x1b[Ka message\n"));
}

}  // namespace
}  // namespace cadre
