#pragma once

/// The forward pass's parallel loops over a team.

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "cadre/base/team.h"
#include "cadre/engine/activations.h"
#include "cadre/engine/weights.h"

namespace cadre::engine {

/// y[t] = W x[t] + bias; y has `y_stride` floats from token to token.
struct Product {
  const Linear* weights;
  const Activations* x;
  float* y;
  int64_t y_stride;
};

/// Runs products of `tokens` rows each as one phase: their panels are shared out as one list, so
/// that small matrices ride along.
void run_products(Team& team, std::span<const Product> products, int64_t tokens);

/// f(begin, end) over parts of [0, n); on the caller's thread alone when n is below `grain`.
template <class F>
void for_ranges(Team& team, int64_t n, int64_t grain, F f) {
  if (n <= grain || team.threads() == 1) {
    if (n > 0) f(int64_t{0}, n);
    return;
  }
  team.run([&](int thread) {
    const Range range = share_of(n, 1, thread, team.threads());
    if (range.begin < range.end) f(range.begin, range.end);
  });
}

/// f(i) for i in [0, n), handed out one by one: for pieces of work of unequal size. Every thread
/// begins with a share of neighbours in rising order (weights that lie behind each other are
/// fetched ahead), then helps with the others' shares.
template <class F>
void for_each_item(Team& team, int64_t n, F f) {
  if (n == 1 || team.threads() == 1) {
    for (int64_t i = 0; i < n; ++i) f(i);
    return;
  }
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };
  const int threads = team.threads();
  std::vector<Share> shares(static_cast<size_t>(threads));
  for (int thread = 0; thread < threads; ++thread) {
    const Range range = share_of(n, 1, thread, threads);
    shares[static_cast<size_t>(thread)].next = range.begin;
    shares[static_cast<size_t>(thread)].end = range.end;
  }
  team.run([&](int thread) {
    for (int i = 0; i < threads; ++i) {
      Share& share = shares[static_cast<size_t>((thread + i) % threads)];
      for (int64_t at = share.next++; at < share.end; at = share.next++) f(at);
    }
  });
}

inline int64_t panels_of(const kernels::PanelMatrix& matrix) {
  return (matrix.rows + kernels::kPanelRows - 1) / kernels::kPanelRows;
}

}  // namespace cadre::engine
