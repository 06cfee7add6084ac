#include "cadre/base/parallel.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "cadre/base/error.h"

namespace cadre {
namespace {

class Parallel : public testing::Test {
 protected:
  void SetUp() override { set_num_threads(4); }
  void TearDown() override { set_num_threads(before_); }
  int before_ = num_threads();
};

TEST_F(Parallel, ForCoversEveryIndexOnceInLongEnoughRanges) {
  for (const int64_t n : {0, 1, 2, 3, 4, 5, 7, 100, 1001}) {
    for (const int64_t grain : {-1, 0, 1, 2, 3, 64, 5000}) {
      std::vector<std::atomic<int>> visits(n);
      std::atomic<int64_t> shortest = n;
      parallel_for(n, grain, [&](int64_t begin, int64_t end) {
        if (end - begin < shortest) shortest = end - begin;
        for (int64_t i = begin; i < end; ++i) ++visits[i];
      });
      for (const auto& count : visits) ASSERT_EQ(count, 1) << "n " << n << " grain " << grain;
      EXPECT_GE(shortest, std::min(n, grain)) << "n " << n << " grain " << grain;
    }
  }
}

TEST_F(Parallel, TasksRunOnceEach) {
  for (const int64_t tasks : {0, 1, 3, 4, 97}) {
    std::vector<std::atomic<int>> visits(tasks);
    parallel_tasks(tasks, [&](int64_t task) { ++visits[task]; });
    for (const auto& count : visits) EXPECT_EQ(count, 1);
  }
}

TEST_F(Parallel, UsesTheTeam) {
  std::set<std::thread::id> threads;
  std::mutex mutex;
  parallel_for(4, 1, [&](int64_t, int64_t) {
    const std::lock_guard lock(mutex);
    threads.insert(std::this_thread::get_id());
  });
  EXPECT_EQ(threads.size(), 4U);
}

TEST_F(Parallel, RethrowsTheExceptionOfABody) {
  EXPECT_THROW(parallel_for(100, 1, [](int64_t, int64_t) { throw UsageError("x"); }), UsageError);
  EXPECT_THROW(parallel_tasks(100,
                              [](int64_t task) {
                                if (task == 57) throw FormatError("task");
                              }),
               FormatError);
  // The team works on afterwards.
  std::atomic<int> visits = 0;
  parallel_tasks(10, [&](int64_t) { ++visits; });
  EXPECT_EQ(visits, 10);
}

TEST_F(Parallel, NestedLoopsRunInline) {
  std::atomic<int> calls = 0;
  parallel_for(4, 1, [&](int64_t, int64_t) {
    const auto outer = std::this_thread::get_id();
    parallel_for(100, 1, [&](int64_t begin, int64_t end) {
      EXPECT_EQ(std::this_thread::get_id(), outer);
      EXPECT_EQ(end - begin, 100);
      ++calls;
    });
    parallel_tasks(3, [&](int64_t) { EXPECT_EQ(std::this_thread::get_id(), outer); });
  });
  EXPECT_EQ(calls, 4);
}

TEST_F(Parallel, RunsInlineInsideAForeignOpenMpRegion) {
  std::atomic<int> calls = 0;
#pragma omp parallel num_threads(2)
  parallel_for(100, 1, [&](int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 2);
}

TEST_F(Parallel, ThreadCountHoldsForEveryThread) {
  int seen = 0;
  std::thread([&] { seen = num_threads(); }).join();
  EXPECT_EQ(seen, 4);
  set_num_threads(1);
  int calls = 0;
  parallel_for(100, 1, [&](int64_t, int64_t) { ++calls; });
  EXPECT_EQ(calls, 1);
  EXPECT_THROW(set_num_threads(0), UsageError);
  EXPECT_EQ(num_threads(), 1);
}

}  // namespace
}  // namespace cadre
