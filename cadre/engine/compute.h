#pragma once

/// The forward pass's parallel loops over a team.

#include <array>
#include <atomic>
#include <cstdint>
#include <span>

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

/// f(i) for i in [0, n), handed out one by one: for pieces of work of unequal size.
template <class F>
void for_each_item(Team& team, int64_t n, F f) {
  if (n == 1 || team.threads() == 1) {
    for (int64_t i = 0; i < n; ++i) f(i);
    return;
  }
  std::atomic<int64_t> next{0};
  team.run([&](int) {
    for (int64_t i = next++; i < n; i = next++) f(i);
  });
}

inline int64_t panels_of(const kernels::PanelMatrix& matrix) {
  return (matrix.rows + kernels::kPanelRows - 1) / kernels::kPanelRows;
}

}  // namespace cadre::engine
