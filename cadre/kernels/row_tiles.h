#pragma once

/// How the rows of many experts become tasks of similar cost.

#include <cstdint>
#include <vector>

namespace cadre::kernels {

/// Rows [begin, end), all of one expert.
struct RowTile {
  int64_t expert, begin, end;

  int64_t rows() const { return end - begin; }
};

/// Rows of a tile at most: a tile's activations (512 x 512 floats) still fit beside a weight matrix
/// in the second and third cache. Smaller when there are few rows, so that a team still shares them
/// evenly. Depends on the number of rows only: so do the results.
int64_t tile_rows(int64_t all_rows);

/// Cuts every expert's rows into even tiles of at most `max_rows`, largest first; experts without
/// rows have none. offsets [experts + 1].
std::vector<RowTile> row_tiles(int64_t experts, const int64_t* offsets, int64_t max_rows);

}  // namespace cadre::kernels
