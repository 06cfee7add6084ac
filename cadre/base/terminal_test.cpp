#include "cadre/base/terminal.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "cadre/base/test_stream.h"

namespace cadre {
namespace {

TEST(Terminal, AFileIsNoTerminal) {
  TestStream stream;
  EXPECT_FALSE(is_terminal(stream.file()));
  EXPECT_FALSE(shows_color(stream.file()));
}

TEST(Terminal, WidthComesFromTheEnvironmentWhenThereIsNoTerminal) {
  TestStream stream;
  setenv("COLUMNS", "33", 1);
  EXPECT_EQ(terminal_width(stream.file()), 33);
  setenv("COLUMNS", "nonsense", 1);
  EXPECT_EQ(terminal_width(stream.file()), 80);
  unsetenv("COLUMNS");
  EXPECT_EQ(terminal_width(stream.file()), 80);
}

TEST(Terminal, LinesArePrintedAboveTheLiveLine) {
  TestStream stream;
  print_line(stream.file(), "before");
  set_live_line(stream.file(), "10%");
  print_line(stream.file(), "message");
  set_live_line(stream.file(), "20%");
  clear_live_line(stream.file());
  clear_live_line(stream.file());
  print_line(stream.file(), "after");
  EXPECT_EQ(stream.text(), "before\n\r\x1b[K10%\r\x1b[Kmessage\n10%\r\x1b[K20%\r\x1b[Kafter\n");
}

TEST(Terminal, TheLiveLineNeverWraps) {
  TestStream stream;
  setenv("COLUMNS", "5", 1);
  set_live_line(stream.file(), "漢字漢字");
  unsetenv("COLUMNS");
  EXPECT_EQ(stream.text(), "\r\x1b[K漢字");
  clear_live_line(stream.file());
}

}  // namespace
}  // namespace cadre
