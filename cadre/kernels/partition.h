#pragma once

/// How row-wise kernels are cut into pieces for the team.

#include <algorithm>
#include <cstdint>

namespace cadre::kernels {

/// Fewest rows worth a thread: waking one costs about as much as touching 16 K floats.
inline int64_t row_grain(int64_t width) {
  return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width));
}

/// Fixed pieces of a sum over rows, chosen by the size alone, so that partial sums combined in
/// order give the same bits for any number of threads.
struct RowChunks {
  int64_t rows, size, count;

  explicit RowChunks(int64_t all_rows)
      : rows(all_rows),
        size(std::max<int64_t>(32, (all_rows + 63) / 64)),
        count((all_rows + size - 1) / size) {}

  int64_t begin(int64_t chunk) const { return chunk * size; }
  int64_t end(int64_t chunk) const { return std::min(rows, (chunk + 1) * size); }
};

}  // namespace cadre::kernels
