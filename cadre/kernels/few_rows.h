#pragma once

/// y = x W^T for few rows x, as fine-grained experts have them. A general product first packs W,
/// which for 64 rows of 512 x 256 costs half as much as the product itself; here x is transposed
/// instead, W is read once where it lies, and every step after the first works on transposed rows.
///
/// A panel is [width, padded_rows(rows)]: column i of it is row i of x, columns beyond the rows are
/// zero.

#include <cstdint>

namespace cadre::kernels {

/// Rows of a panel at most: four AVX-512 vectors, six rows of W and their products fill the
/// registers.
inline constexpr int64_t kPanelRows = 64;

/// Columns of a panel that holds `rows`.
inline int64_t padded_rows(int64_t rows) { return (rows + 15) / 16 * 16; }

/// y [columns, rows] = transpose of x [rows, columns]; `ldx`, `ldy` elements between rows.
void transpose(const float* x, int64_t rows, int64_t columns, int64_t ldx, float* y, int64_t ldy);

/// panel from x [rows, width], `ldx` elements between rows; rows <= kPanelRows.
void to_panel(const float* x, int64_t rows, int64_t width, int64_t ldx, float* panel);

/// y [rows, width] from a panel.
void from_panel(const float* panel, int64_t rows, int64_t width, int64_t ldy, float* y);

/// out [n, columns] = W [n, k] * panel [k, columns], columns a multiple of 16 up to kPanelRows.
/// Runs on the calling thread.
void panel_product(const float* w, int64_t n, int64_t k, const float* panel, int64_t columns,
                   float* out);

/// Calls body(begin, count) for rows [0, rows) in panels of equal size, as far as whole vectors
/// allow.
template <class Body>
void for_each_panel(int64_t rows, const Body& body) {
  const int64_t vectors = padded_rows(rows) / 16;
  const int64_t panels = (padded_rows(rows) + kPanelRows - 1) / kPanelRows;
  for (int64_t i = 0; i < panels; ++i) {
    const int64_t begin = vectors * i / panels * 16;
    const int64_t end = vectors * (i + 1) / panels * 16;
    body(begin, (end < rows ? end : rows) - begin);
  }
}

}  // namespace cadre::kernels
