#include "cadre/base/team.h"

#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <vector>

#include "cadre/base/error.h"

namespace cadre {
namespace {

class TeamOf : public testing::TestWithParam<int> {};
// Eight members are more than a small machine's cores: they sleep instead of spinning.
INSTANTIATE_TEST_SUITE_P(Sizes, TeamOf, testing::Values(1, 2, 3, 8));

TEST_P(TeamOf, RunsEveryMemberOnceAJob) {
  Team team(GetParam());
  EXPECT_EQ(team.threads(), GetParam());
  std::vector<int> runs(GetParam());
  for (int job = 0; job < 200; ++job) team.run([&](int thread) { ++runs[thread]; });
  EXPECT_EQ(runs, std::vector<int>(GetParam(), 200));
}

TEST_P(TeamOf, BarrierShowsEveryonesWork) {
  Team team(GetParam());
  const int threads = GetParam();
  std::vector<int> value(threads, 1);
  std::atomic<int> wrong = 0;
  team.run([&](int thread) {
    for (int phase = 0; phase < 200; ++phase) {
      team.barrier();
      const int sum = std::accumulate(value.begin(), value.end(), 0);
      if (sum != threads * (phase + 1)) ++wrong;
      team.barrier();
      ++value[thread];
    }
  });
  EXPECT_EQ(wrong, 0);
}

TEST_P(TeamOf, ExceptionOfAnyMemberIsRethrownAndNobodyWaitsForever) {
  Team team(GetParam());
  for (int bad = 0; bad < GetParam(); ++bad) {
    std::atomic<int> passed = 0;
    EXPECT_THROW(team.run([&](int thread) {
      team.barrier();
      if (thread == bad) throw FormatError("broken");
      team.barrier();
      ++passed;
    }),
                 FormatError);
    EXPECT_EQ(passed, 0);
  }
  std::atomic<int> members = 0;
  team.run([&](int) {
    team.barrier();
    ++members;
    team.barrier();
  });
  EXPECT_EQ(members, GetParam());
}

TEST_P(TeamOf, AllMembersMayThrowAtOnce) {
  Team team(GetParam());
  for (int job = 0; job < 50; ++job) {
    EXPECT_THROW(team.run([](int) { throw IoError("gone"); }), IoError);
  }
}

TEST(Team, RefusesToHaveNoMembers) {
  EXPECT_THROW(Team(0), UsageError);
  EXPECT_THROW(Team(-2), UsageError);
}

TEST(ShareOf, CoversAllInWholeGrains) {
  for (const int64_t n : {0, 1, 7, 64, 1000}) {
    for (const int64_t grain : {1, 2, 32}) {
      for (const int threads : {1, 2, 3, 16}) {
        int64_t at = 0, least = n, most = 0;
        for (int thread = 0; thread < threads; ++thread) {
          const Range range = share_of(n, grain, thread, threads);
          ASSERT_EQ(range.begin, at);
          ASSERT_GE(range.end, range.begin);
          if (range.end < n) {
            ASSERT_EQ(range.end % grain, 0);
          }
          at = range.end;
          const int64_t units = (range.end - range.begin + grain - 1) / grain;
          least = std::min(least, units);
          most = std::max(most, units);
        }
        ASSERT_EQ(at, n);
        ASSERT_LE(most - least, 1);
      }
    }
  }
}

}  // namespace
}  // namespace cadre
