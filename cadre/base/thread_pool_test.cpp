#include "cadre/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <numeric>
#include <vector>

#include "cadre/base/error.h"

namespace cadre {
namespace {

TEST(ThreadPool, ReturnsEveryResult) {
  ThreadPool pool(3);
  EXPECT_EQ(pool.threads(), 3);
  std::vector<std::future<int>> results;
  for (int i = 0; i < 500; ++i) results.push_back(pool.submit([i] { return i * i; }));
  for (int i = 0; i < 500; ++i) EXPECT_EQ(results[i].get(), i * i);
}

TEST(ThreadPool, OneWorkerKeepsTheOrder) {
  std::vector<int> order;
  {
    ThreadPool pool(1);
    for (int i = 0; i < 100; ++i) pool.submit([i, &order] { order.push_back(i); });
  }
  std::vector<int> expected(100);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

TEST(ThreadPool, ExceptionsPassThroughTheFuture) {
  ThreadPool pool(2);
  auto broken = pool.submit([]() -> int { throw FormatError("broken"); });
  auto sound = pool.submit([] { return 1; });
  EXPECT_THROW(broken.get(), FormatError);
  EXPECT_EQ(sound.get(), 1);
}

TEST(ThreadPool, DestructionFinishesWhatWasSubmitted) {
  std::atomic<int> done = 0;
  {
    ThreadPool pool(2);
    for (int i = 0; i < 50; ++i) {
      pool.submit([&done] {
        std::this_thread::sleep_for(std::chrono::microseconds(100));
        ++done;
      });
    }
  }
  EXPECT_EQ(done, 50);
}

TEST(ThreadPool, TasksMaySubmitTasksAlsoDuringDestruction) {
  std::atomic<int> done = 0;
  {
    ThreadPool pool(2);
    for (int i = 0; i < 20; ++i) {
      pool.submit([&] {
        ++done;
        pool.submit([&done] { ++done; });
      });
    }
  }
  EXPECT_EQ(done, 40);
}

TEST(ThreadPool, ManyThreadsMaySubmit) {
  std::atomic<int> sum = 0;
  {
    ThreadPool pool(2);
    std::vector<std::thread> clients;
    for (int client = 0; client < 4; ++client) {
      clients.emplace_back([&] {
        for (int i = 0; i < 200; ++i) pool.submit([&sum] { ++sum; });
      });
    }
    for (auto& client : clients) client.join();
  }
  EXPECT_EQ(sum, 800);
}

TEST(ThreadPool, TakesTasksThatCannotBeCopied) {
  ThreadPool pool(1);
  auto value = std::make_unique<int>(5);
  EXPECT_EQ(pool.submit([value = std::move(value)] { return *value; }).get(), 5);
}

TEST(ThreadPool, RefusesToHaveNoThreads) {
  EXPECT_THROW(ThreadPool(0), UsageError);
  EXPECT_THROW(ThreadPool(-1), UsageError);
}

}  // namespace
}  // namespace cadre
