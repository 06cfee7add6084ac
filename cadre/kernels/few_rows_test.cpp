#include "cadre/kernels/few_rows.h"

#include <limits>

#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(FewRows, TransposeEqualsTheReference) {
  for (const int64_t rows : {1, 3, 4, 16, 37, 64}) {
    for (const int64_t columns : {1, 5, 8, 33, 130}) {
      const Floats x = random_floats(rows * (columns + 2), 1);
      Floats y(columns * (rows + 3), kNan);
      transpose(x.data(), rows, columns, columns + 2, y.data(), rows + 3);
      for (int64_t i = 0; i < rows; ++i) {
        for (int64_t j = 0; j < columns; ++j) {
          ASSERT_EQ(y[j * (rows + 3) + i], x[i * (columns + 2) + j]);
        }
      }
      EXPECT_TRUE(std::isnan(y[rows])) << "wrote between the rows";
    }
  }
}

TEST(FewRows, ProductEqualsTheReferenceForAllRowCounts) {
  for (int64_t rows = 1; rows <= kPanelRows; rows += rows < 18 ? 1 : 7) {
    for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 1}, {5, 9}, {12, 16}, {29, 70}}) {
      const Floats x = random_floats(rows * k, 1);
      const Floats w = random_floats(n * k, 2);
      std::vector<double> want(rows * n);
      for (int64_t i = 0; i < rows * n; ++i) {
        for (int64_t j = 0; j < k; ++j) {
          want[i] += static_cast<double>(x[i / n * k + j]) * w[i % n * k + j];
        }
      }
      Floats panel(k * padded_rows(rows), kNan);
      Floats out(n * padded_rows(rows), kNan);
      Floats y(rows * n, kNan);
      to_panel(x.data(), rows, k, k, panel.data());
      panel_product(w.data(), n, k, panel.data(), padded_rows(rows), out.data());
      from_panel(out.data(), rows, n, n, y.data());
      expect_close(y, want, 1e-4, "y");
    }
  }
}

TEST(FewRows, PanelsCoverTheRowsOnce) {
  for (const int64_t rows : {0, 1, 16, 64, 65, 130, 456}) {
    int64_t next = 0;
    for_each_panel(rows, [&](int64_t begin, int64_t count) {
      EXPECT_EQ(begin, next);
      EXPECT_GE(count, 1);
      EXPECT_LE(count, kPanelRows);
      next = begin + count;
    });
    EXPECT_EQ(next, rows);
  }
}

}  // namespace
}  // namespace cadre::kernels
