#include "cadre/base/team.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "cadre/base/error.h"

namespace cadre {
namespace {

/// Some 20 us: what a phase of token generation waits for the slowest member. Then sleep: others
/// may want the core.
constexpr int kSpins = 500;
/// When there are more members than cores, the one waited for may need this very core.
constexpr int kSpinsWhenCrowded = 20;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

/// Waits until `word` differs from `old`: spins, then sleeps in the kernel.
void wait_for_change(const std::atomic<uint32_t>& word, uint32_t old, int spins) {
  for (int i = 0; i < spins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    pause();
  }
  word.wait(old, std::memory_order_acquire);
}

/// Thrown out of barrier() when another member's body has thrown: it will never arrive.
struct Abandoned {};

}  // namespace

/// A barrier is a count of members still to come and a phase that the last one advances; both stand
/// on a line of their own, as the job's number does, so that waiting disturbs nobody's work.
struct Team::State {
  explicit State(int threads)
      : threads(threads),
        spins(threads > static_cast<int>(std::thread::hardware_concurrency()) ? kSpinsWhenCrowded
                                                                              : kSpins) {}

  void barrier();
  void run_body(int thread);
  void work(int thread);
  void start_job();
  void fail(std::exception_ptr error);

  const int threads;
  const int spins;
  std::vector<std::thread> workers;

  alignas(64) std::atomic<uint32_t> job = 0;
  const std::function<void(int)>* body = nullptr;
  bool stopping = false;

  alignas(64) std::atomic<int> missing = 0;
  std::atomic<uint32_t> phase = 0;
  std::atomic<bool> failed = false;

  alignas(64) std::atomic<int> running = 0;
  std::atomic<uint32_t> finished = 0;

  std::mutex error_mutex;
  std::exception_ptr error;
};

void Team::State::barrier() {
  if (threads == 1) return;
  const uint32_t before = phase.load(std::memory_order_acquire);
  if (missing.fetch_sub(1, std::memory_order_acq_rel) == 1) {
    missing.store(threads, std::memory_order_relaxed);
    phase.store(before + 1, std::memory_order_release);
    phase.notify_all();
  } else if (!failed.load()) {
    wait_for_change(phase, before, spins);
  }
  if (failed.load()) throw Abandoned();
}

void Team::State::fail(std::exception_ptr thrown) {
  {
    const std::lock_guard lock(error_mutex);
    if (!error) error = std::move(thrown);
  }
  failed.store(true);
  phase.fetch_add(1);
  phase.notify_all();
}

void Team::State::run_body(int thread) {
  try {
    (*body)(thread);
  } catch (const Abandoned&) {
  } catch (...) {
    fail(std::current_exception());
  }
}

void Team::State::work(int thread) {
  for (uint32_t seen = 0;;) {
    wait_for_change(job, seen, spins);
    ++seen;
    if (stopping) return;
    run_body(thread);
    if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      finished.fetch_add(1, std::memory_order_release);
      finished.notify_one();
    }
  }
}

void Team::State::start_job() {
  missing.store(threads, std::memory_order_relaxed);
  running.store(threads - 1, std::memory_order_relaxed);
  job.fetch_add(1, std::memory_order_release);
  job.notify_all();
}

Team::Team(int threads) {
  if (threads < 1) throw UsageError("a team of {} threads requested: use at least 1", threads);
  state_ = std::make_unique<State>(threads);
  for (int thread = 1; thread < threads; ++thread) {
    state_->workers.emplace_back([state = state_.get(), thread] { state->work(thread); });
  }
}

Team::~Team() {
  state_->stopping = true;
  state_->start_job();
  for (std::thread& worker : state_->workers) worker.join();
}

int Team::threads() const { return state_->threads; }

void Team::run(const std::function<void(int)>& body) {
  State& state = *state_;
  if (state.threads == 1) return body(0);
  state.body = &body;
  const uint32_t finished = state.finished.load(std::memory_order_acquire);
  state.start_job();
  state.run_body(0);
  wait_for_change(state.finished, finished, state.spins);
  if (state.failed.load()) {
    state.failed.store(false);
    std::rethrow_exception(std::exchange(state.error, nullptr));
  }
}

void Team::barrier() { state_->barrier(); }

Range share_of(int64_t n, int64_t grain, int thread, int threads) {
  const int64_t units = (n + grain - 1) / grain;
  const int64_t begin = units * thread / threads * grain;
  const int64_t end = units * (thread + 1) / threads * grain;
  return {std::min(begin, n), std::min(end, n)};
}

}  // namespace cadre
