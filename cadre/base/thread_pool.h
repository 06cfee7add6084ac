#pragma once

/// Threads for background work: reading, tokenising, writing. Number crunching belongs to
/// parallel_for (cadre/base/parallel.h).

#include <condition_variable>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <queue>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace cadre {

/// A fixed number of workers that take tasks in the order they were submitted. A task must not wait
/// for another one of the same pool. Any thread may submit, a task too.
class ThreadPool {
 public:
  /// Throws UsageError when threads < 1.
  explicit ThreadPool(int threads);
  /// Finishes every submitted task first; exceptions wait in the futures.
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()); }

  /// Queues `task()`; its result or exception comes out of the future. Costs about 2 microseconds.
  template <typename Task>
  std::future<std::invoke_result_t<Task>> submit(Task task) {
    // std::function wants a copyable target and a packaged_task is not.
    auto packaged =
        std::make_shared<std::packaged_task<std::invoke_result_t<Task>()>>(std::move(task));
    auto future = packaged->get_future();
    enqueue([packaged] { (*packaged)(); });
    return future;
  }

 private:
  void enqueue(std::function<void()> task);
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::queue<std::function<void()>> tasks_;
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

}  // namespace cadre
