#include "cadre/kernels/top_k.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <vector>

#include "cadre/base/parallel.h"
#include "cadre/kernels/partition.h"

namespace cadre::kernels {
namespace {

/// Up to here the k best are kept sorted while scanning: a router's row of 64 scores costs some 0.2
/// us. Beyond, selection by std::nth_element is cheaper than moving a long list at every find.
constexpr int64_t kMaxInsertion = 64;

/// One integer per score that orders like (score falling, index rising): the larger, the earlier.
uint64_t rank_key(float score, int64_t index) {
  const uint32_t bits = std::bit_cast<uint32_t>(score + 0.0f);  // -0 ties with +0
  // Negative numbers are turned over, the others moved above them; without a branch on the random
  // sign.
  const uint32_t flip = static_cast<uint32_t>(static_cast<int32_t>(bits) >> 31) | 0x80000000u;
  const uint32_t order = std::isnan(score) ? 0 : bits ^ flip;  // NaN below everything
  return static_cast<uint64_t>(order) << 32 | (0xffffffffu - static_cast<uint32_t>(index));
}

int32_t index_of(uint64_t key) { return static_cast<int32_t>(0xffffffffu - (key & 0xffffffffu)); }

/// Puts `key` into best [held + 1], which stays falling.
void insert(uint64_t* best, int64_t held, uint64_t key) {
  int64_t slot = held;
  for (; slot > 0 && best[slot - 1] < key; --slot) best[slot] = best[slot - 1];
  best[slot] = key;
}

/// best [k], falling.
void select_by_insertion(const float* scores, int64_t n, int64_t k, uint64_t* best) {
  for (int64_t i = 0; i < k; ++i) insert(best, i, rank_key(scores[i], i));
  float worst = scores[index_of(best[k - 1])];
  for (int64_t i = k; i < n; ++i) {
    // Most scores end here. A tie loses to the lower index; a NaN wins against nothing.
    if (scores[i] <= worst || std::isnan(scores[i])) continue;
    insert(best, k - 1, rank_key(scores[i], i));
    worst = scores[index_of(best[k - 1])];
  }
}

/// keys [n] is working space; its first k become the selection, falling.
void select_by_partition(const float* scores, int64_t n, int64_t k, uint64_t* keys) {
  for (int64_t i = 0; i < n; ++i) keys[i] = rank_key(scores[i], i);
  if (k < n) std::nth_element(keys, keys + k, keys + n, std::greater<>());
  std::sort(keys, keys + k, std::greater<>());
}

/// Takes from the top of a heap: n steps to build it and log n for each score taken, of which there
/// are few.
int64_t select_prefix(const float* scores, int64_t n, float p, uint64_t* keys, int32_t* indices) {
  for (int64_t i = 0; i < n; ++i) keys[i] = rank_key(scores[i], i);
  std::make_heap(keys, keys + n);
  float sum = 0;
  int64_t taken = 0;
  while (taken < n && (taken == 0 || sum <= p)) {
    std::pop_heap(keys, keys + n - taken);
    indices[taken] = index_of(keys[n - 1 - taken]);
    sum += scores[indices[taken++]];
  }
  return taken;
}

}  // namespace

void top_k(const float* scores, int64_t rows, int64_t n, int64_t k, int32_t* indices,
           float* values) {
  if (k == 0) return;
  parallel_for(rows, row_grain(4 * n), [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> keys(k <= kMaxInsertion ? k : n);
    for (int64_t row = begin; row < end; ++row) {
      const float* from = scores + row * n;
      if (k <= kMaxInsertion) {
        select_by_insertion(from, n, k, keys.data());
      } else {
        select_by_partition(from, n, k, keys.data());
      }
      for (int64_t i = 0; i < k; ++i) {
        const int32_t index = index_of(keys[i]);
        indices[row * k + i] = index;
        if (values != nullptr) values[row * k + i] = from[index];
      }
    }
  });
}

void top_p(const float* scores, int64_t rows, int64_t n, float p, int32_t* indices,
           int64_t* counts) {
  parallel_for(rows, row_grain(8 * n), [&](int64_t begin, int64_t end) {
    std::vector<uint64_t> keys(n);
    for (int64_t row = begin; row < end; ++row) {
      counts[row] = select_prefix(scores + row * n, n, p, keys.data(), indices + row * n);
    }
  });
}

}  // namespace cadre::kernels
