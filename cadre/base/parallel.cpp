#include "cadre/base/parallel.h"

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

#include "cadre/base/error.h"

namespace cadre {
namespace {

// OpenMP keeps its thread count per calling thread; ours holds for the process. Read before main(),
// because LibTorch's first parallel operation may set OpenMP's to one.
std::atomic<int> thread_setting = std::max(1, omp_get_max_threads());

// An exception must not leave an OpenMP region: the first one is carried out of it.
class FirstException {
 public:
  template <typename Function>
  void guard(const Function& function) noexcept {
    if (failed_.load(std::memory_order_relaxed)) return;
    try {
      function();
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!exception_) exception_ = std::current_exception();
      failed_.store(true, std::memory_order_relaxed);
    }
  }

  void rethrow() const {
    if (exception_) std::rethrow_exception(exception_);
  }

 private:
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;
  std::exception_ptr exception_;
};

}  // namespace

int num_threads() { return thread_setting.load(std::memory_order_relaxed); }

void set_num_threads(int threads) {
  if (threads < 1) throw UsageError("{} threads requested: use at least 1", threads);
  thread_setting.store(threads, std::memory_order_relaxed);
  omp_set_num_threads(threads);
}

bool in_parallel_loop() { return omp_in_parallel() != 0; }

void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  if (n <= 0) return;
  const int64_t ranges = std::min<int64_t>(num_threads(), n / std::max<int64_t>(grain, 1));
  if (ranges <= 1 || omp_in_parallel()) {
    body(0, n);
    return;
  }
  FirstException first;
  // A loop over ranges, not one range a thread: the team may be smaller than what was asked for.
#pragma omp parallel for schedule(static, 1) num_threads(static_cast <int>(ranges))
  for (int64_t range = 0; range < ranges; ++range) {
    first.guard([&] {
      const auto edge = [&](int64_t index) {
        return index * (n / ranges) + std::min(index, n % ranges);
      };
      body(edge(range), edge(range + 1));
    });
  }
  first.rethrow();
}

void parallel_tasks(int64_t tasks, const std::function<void(int64_t)>& body) {
  const int64_t threads = std::min<int64_t>(num_threads(), tasks);
  if (threads <= 1 || omp_in_parallel()) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  FirstException first;
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast <int>(threads))
  for (int64_t task = 0; task < tasks; ++task) {
    first.guard([&] { body(task); });
  }
  first.rethrow();
}

}  // namespace cadre
