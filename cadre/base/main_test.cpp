#include "cadre/base/main.h"

#include <gtest/gtest.h>

#include <new>
#include <stdexcept>

#include "cadre/base/error.h"

namespace cadre {
namespace {

struct Outcome {
  int code;
  std::string err;
};

Outcome run(const std::function<int()>& body) {
  testing::internal::CaptureStderr();
  const int code = run_main("eval", body);
  return {code, testing::internal::GetCapturedStderr()};
}

TEST(RunMain, PassesTheResultThrough) {
  const auto outcome = run([] { return 7; });
  EXPECT_EQ(outcome.code, 7);
  EXPECT_EQ(outcome.err, "");
}

TEST(RunMain, UsersMistakesExitWith2OursWith1) {
  const auto code_of = [](auto exception) { return run([&]() -> int { throw exception; }).code; };
  EXPECT_EQ(code_of(UsageError("x")), 2);
  EXPECT_EQ(code_of(FormatError("x")), 2);
  EXPECT_EQ(code_of(IoError("x")), 2);
  EXPECT_EQ(code_of(Error("x")), 1);
  EXPECT_EQ(code_of(std::runtime_error("x")), 1);
  EXPECT_EQ(code_of(std::bad_alloc()), 1);
  EXPECT_EQ(code_of(42), 1);
}

TEST(RunMain, PrintsOneLine) {
  const auto outcome =
      run([]() -> int { throw FormatError("{}: bad\n\nheader\x1b[31m", "a\tb.json"); });
  EXPECT_EQ(outcome.err, "cadre eval: a b.json: bad header [31m\n");
}

TEST(RunMain, CutsTheBackTraceOfForeignExceptions) {
  const auto outcome = run([]() -> int { throw std::runtime_error("shape\nframe 0: f()"); });
  EXPECT_EQ(outcome.err, "cadre eval: shape\n");
}

TEST(RunMain, SaysWhenMemoryRanOut) {
  const auto outcome = run([]() -> int { throw std::bad_alloc(); });
  EXPECT_NE(outcome.err.find("out of memory"), std::string::npos);
}

TEST(RunMain, NoticesAnOutputThatCannotBeWritten) {
  EXPECT_EXIT(
      {
        if (std::freopen("/dev/full", "w", stdout) == nullptr) std::exit(99);
        std::exit(run_main("eval", [] {
          std::puts("lost");
          return 0;
        }));
      },
      testing::ExitedWithCode(2), "cadre eval: cannot write to standard output: No space left");
}

}  // namespace
}  // namespace cadre
