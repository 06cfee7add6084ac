#pragma once

/// A fixed team of threads that runs one function at a time on all of them: what token generation
/// wants, hundreds of short parallel phases a token. A member that waits spins for some 20 us (less
/// when there are more members than cores), then sleeps. With two idle cores an empty run() costs
/// 150 ns, a barrier 40 ns.

#include <cstdint>
#include <functional>
#include <memory>

namespace cadre {

class Team {
 public:
  /// `threads` >= 1, the caller being one of them.
  explicit Team(int threads);
  ~Team();
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;

  int threads() const;
  /// Runs body(thread) on every member, thread in [0, threads()); returns when all are done. The
  /// first exception is rethrown (after all have finished; a body that throws must not leave others
  /// waiting in barrier()).
  void run(const std::function<void(int)>& body);
  /// Inside run(): waits until all members are here.
  void barrier();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The part of [0, n) that belongs to `thread`: contiguous, sizes differ by at most one unit of
/// `grain`.
struct Range {
  int64_t begin, end;
};
Range share_of(int64_t n, int64_t grain, int thread, int threads);

}  // namespace cadre
