#include "cadre/base/log.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "cadre/base/error.h"
#include "cadre/base/main.h"

namespace cadre {
namespace {

std::string logged(std::string_view level) {
  set_log_level(level);
  testing::internal::CaptureStderr();
  logger().debug("detail {}", 1);
  logger().info("read {} tokens", 12);
  logger().warn("slow");
  logger().error("broken");
  set_log_level("info");
  return testing::internal::GetCapturedStderr();
}

TEST(Log, LevelDecidesWhatIsPrinted) {
  EXPECT_EQ(logged("debug"), "debug: detail 1\nread 12 tokens\nwarning: slow\nerror: broken\n");
  EXPECT_EQ(logged("info"), "read 12 tokens\nwarning: slow\nerror: broken\n");
  EXPECT_EQ(logged("error"), "error: broken\n");
  EXPECT_EQ(logged("off"), "");
}

TEST(Log, UnknownLevelIsTheUsersMistake) { EXPECT_THROW(set_log_level("loud"), UsageError); }

TEST(Log, UnknownLevelInTheEnvironmentEndsTheProgram) {
  // A fresh process: here the logger may exist already.
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        setenv("CADRE_LOG", "loud", 1);
        std::exit(run_main("eval", [] { return 0; }));
      },
      testing::ExitedWithCode(2), "cadre eval: CADRE_LOG 'loud' is unknown: use one of trace");
}

}  // namespace
}  // namespace cadre
