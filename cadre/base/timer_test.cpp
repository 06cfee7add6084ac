#include "cadre/base/timer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <thread>

namespace cadre {
namespace {

void spin(double seconds) {
  const Stopwatch watch;
  while (watch.seconds() < seconds) {
  }
}

TEST(Timer, StopwatchRunsAndRestarts) {
  Stopwatch watch;
  spin(0.002);
  EXPECT_GE(watch.seconds(), 0.002);
  watch.restart();
  EXPECT_LT(watch.seconds(), 0.002);
}

TEST(Timer, NestedSectionsSplitTheirTime) {
  Profile profile;
  {
    const ScopedTimer step(profile, "step");
    spin(0.002);
    for (int i = 0; i < 3; ++i) {
      const ScopedTimer gemm(profile, "gemm");
      spin(0.002);
    }
  }
  const auto entries = profile.entries();
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].name, "gemm");
  EXPECT_EQ(entries[0].calls, 3);
  EXPECT_GE(entries[0].seconds, 0.006);
  EXPECT_DOUBLE_EQ(entries[0].seconds, entries[0].self_seconds);
  EXPECT_EQ(entries[1].calls, 1);
  EXPECT_GE(entries[1].self_seconds, 0.002);
  EXPECT_NEAR(entries[1].seconds, entries[0].seconds + entries[1].self_seconds, 1e-8);
}

TEST(Timer, AnExceptionClosesItsSections) {
  Profile profile;
  try {
    const ScopedTimer outer(profile, "outer");
    const ScopedTimer inner(profile, "inner");
    throw std::runtime_error("stop");
  } catch (const std::runtime_error&) {
  }
  { const ScopedTimer after(profile, "after"); }
  for (const auto& entry : profile.entries()) EXPECT_EQ(entry.calls, 1) << entry.name;
  EXPECT_EQ(profile.entries().size(), 3U);
}

TEST(Timer, ThreadsAddUp) {
  Profile profile;
  const auto work = [&] {
    for (int i = 0; i < 1000; ++i) const ScopedTimer timer(profile, "work");
  };
  std::thread first(work);
  std::thread second(work);
  first.join();
  second.join();
  EXPECT_EQ(profile.entries().at(0).calls, 2000);
}

TEST(Timer, ResetForgetsAndKeepsReferencesValid) {
  Profile profile;
  Profile::Section& section = profile.section("a");
  { const ScopedTimer timer(section); }
  profile.reset();
  EXPECT_TRUE(profile.entries().empty());
  { const ScopedTimer timer(section); }
  EXPECT_EQ(profile.entries().at(0).calls, 1);
  EXPECT_EQ(&profile.section("a"), &section);
  EXPECT_EQ(&Profile::global(), &Profile::global());
}

TEST(Timer, TableShowsSharesAndTheRest) {
  Profile profile;
  profile.section("gemm").calls = 2;
  profile.section("gemm").nanoseconds = 3'000'000'000;
  profile.section("gemm").self_nanoseconds = 3'000'000'000;
  EXPECT_EQ(profile.table(4),
            "section      calls  seconds  own seconds  own share\n"
            "gemm             2    3.000        3.000     75.0 %\n"
            "(elsewhere)                        1.000     25.0 %\n");
  EXPECT_THAT(profile.table(), testing::HasSubstr("100.0 %"));
  EXPECT_EQ(Profile().table(), "section  calls  seconds  own seconds  own share\n");
}

}  // namespace
}  // namespace cadre
