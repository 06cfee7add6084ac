#include "cadre/kernels/row_tiles.h"

#include <algorithm>

namespace cadre::kernels {

int64_t tile_rows(int64_t all_rows) { return std::clamp<int64_t>(all_rows / 32, 32, 512); }

std::vector<RowTile> row_tiles(int64_t experts, const int64_t* offsets, int64_t max_rows) {
  std::vector<RowTile> tiles;
  tiles.reserve(experts + (offsets[experts] - offsets[0]) / max_rows);
  for (int64_t expert = 0; expert < experts; ++expert) {
    const int64_t first = offsets[expert];
    const int64_t rows = offsets[expert + 1] - first;
    const int64_t count = (rows + max_rows - 1) / max_rows;
    for (int64_t i = 0; i < count; ++i) {
      tiles.push_back({expert, first + rows * i / count, first + rows * (i + 1) / count});
    }
  }
  std::stable_sort(tiles.begin(), tiles.end(),
                   [](const RowTile& a, const RowTile& b) { return a.rows() > b.rows(); });
  return tiles;
}

}  // namespace cadre::kernels
