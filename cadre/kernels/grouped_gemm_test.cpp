#include "cadre/kernels/grouped_gemm.h"

#include <limits>

#include "cadre/kernels/row_tiles.h"
#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

using Offsets = std::vector<int64_t>;

/// Empty, one expert, all rows on one expert, many small ones, large ones that are cut into tiles.
std::vector<Offsets> routings() {
  return {{0, 0},
          {0, 0, 0, 0},
          {0, 1},
          {0, 700},
          {0, 0, 0, 333, 333},
          random_offsets(7, 9, 1),
          {0, 1300, 1300, 1301, 2100},
          random_offsets(40, 30, 2),
          random_offsets(5, 400, 3)};
}

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(GroupedGemm, AllThreeFormsEqualTheReference) {
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {5, 3}, {33, 17}, {130, 20}}) {
    for (const Offsets& offsets : routings()) {
      const int64_t experts = static_cast<int64_t>(offsets.size()) - 1;
      const int64_t rows = offsets.back();
      const Floats x = random_floats(rows * k, 1);
      const Floats w = random_floats(experts * n * k, 2);
      const Floats dy = random_floats(rows * n, 3);
      std::vector<double> y(rows * n), dx(rows * k), dw(experts * n * k);
      for (int64_t e = 0; e < experts; ++e) {
        for (int64_t r = offsets[e]; r < offsets[e + 1]; ++r) {
          for (int64_t i = 0; i < n; ++i) {
            for (int64_t j = 0; j < k; ++j) {
              const int64_t at = (e * n + i) * k + j;
              y[r * n + i] += static_cast<double>(x[r * k + j]) * w[at];
              dx[r * k + j] += static_cast<double>(dy[r * n + i]) * w[at];
              dw[at] += static_cast<double>(dy[r * n + i]) * x[r * k + j];
            }
          }
        }
      }
      Floats got_y(rows * n, kNan), got_dx(rows * k, kNan), got_dw(experts * n * k, kNan);
      grouped_gemm(experts, offsets.data(), n, k, x.data(), w.data(), got_y.data());
      grouped_gemm_input_grad(experts, offsets.data(), n, k, dy.data(), w.data(), got_dx.data());
      grouped_gemm_weight_grad(experts, offsets.data(), n, k, dy.data(), x.data(), got_dw.data());
      expect_close(got_y, y, 1e-4, "y");
      expect_close(got_dx, dx, 1e-4, "dx");
      expect_close(got_dw, dw, 1e-4, "dw");
    }
  }
}

TEST(RowTiles, CoverEveryRowOnceLargestFirst) {
  for (const Offsets& offsets : routings()) {
    const int64_t experts = static_cast<int64_t>(offsets.size()) - 1;
    const auto tiles = row_tiles(experts, offsets.data(), 64);
    std::vector<int> covered(offsets.back());
    for (size_t i = 0; i < tiles.size(); ++i) {
      EXPECT_GT(tiles[i].rows(), 0);
      EXPECT_LE(tiles[i].rows(), 64);
      if (i > 0) {
        EXPECT_LE(tiles[i].rows(), tiles[i - 1].rows());
      }
      EXPECT_GE(tiles[i].begin, offsets[tiles[i].expert]);
      EXPECT_LE(tiles[i].end, offsets[tiles[i].expert + 1]);
      for (int64_t r = tiles[i].begin; r < tiles[i].end; ++r) ++covered[r];
    }
    for (const int count : covered) EXPECT_EQ(count, 1);
  }
}

}  // namespace
}  // namespace cadre::kernels
