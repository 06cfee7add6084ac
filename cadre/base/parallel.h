#pragma once

/// Data-parallel loops. They run on OpenMP's team, because oneDNN and LibTorch run on it too: a
/// second pool would spin beside theirs and halve the speed of a small machine. Background work
/// (reading, tokenising) belongs to ThreadPool instead.

#include <cstdint>
#include <functional>

namespace cadre {

/// Number of threads that parallel_for uses (default: the cores this process may run on).
int num_threads();

/// Sets the number of threads of parallel_for, oneDNN and (through OpenMP) LibTorch. At least 1.
void set_num_threads(int threads);

/// True inside a parallel loop (ours, oneDNN's or LibTorch's): what runs there runs on one thread.
bool in_parallel_loop();

/// Calls body(begin, end) on disjoint ranges that cover [0, n), at least `grain` long but for the
/// last, statically split over the team. Runs inline when there is one range, one thread, or when
/// already inside a parallel loop. The first exception of a body is rethrown after the loop.
void parallel_for(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

/// Calls body(task) for every task in [0, tasks), handed out one by one in order to whichever
/// thread is free: for tasks of unequal cost (put the largest first). Same rules as parallel_for.
void parallel_tasks(int64_t tasks, const std::function<void(int64_t)>& body);

}  // namespace cadre
