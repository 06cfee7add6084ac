#include "cadre/kernels/few_rows.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/few_rows.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

/// to[j * ld_to + i] = from[i * ld_from + j] for i < 4, j < 4.
HWY_INLINE void transpose_4x4(const float* from, int64_t ld_from, float* to, int64_t ld_to) {
#if HWY_TARGET == HWY_SCALAR
  for (int64_t i = 0; i < 4; ++i) {
    for (int64_t j = 0; j < 4; ++j) to[j * ld_to + i] = from[i * ld_from + j];
  }
#else
  const hn::FixedTag<float, 4> d;
  const hn::Repartition<double, decltype(d)> pairs;
  const auto a = hn::LoadU(d, from);
  const auto b = hn::LoadU(d, from + ld_from);
  const auto c = hn::LoadU(d, from + 2 * ld_from);
  const auto e = hn::LoadU(d, from + 3 * ld_from);
  const auto ab_low = hn::BitCast(pairs, hn::InterleaveLower(d, a, b));
  const auto ab_high = hn::BitCast(pairs, hn::InterleaveUpper(d, a, b));
  const auto ce_low = hn::BitCast(pairs, hn::InterleaveLower(d, c, e));
  const auto ce_high = hn::BitCast(pairs, hn::InterleaveUpper(d, c, e));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, ab_low, ce_low)), d, to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, ab_low, ce_low)), d, to + ld_to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, ab_high, ce_high)), d, to + 2 * ld_to);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, ab_high, ce_high)), d, to + 3 * ld_to);
#endif
}

/// to [columns, ld_to] = transpose of from [rows, columns] for at most 16 rows or 16 columns.
HWY_INLINE void transpose_strip(const float* from, int64_t rows, int64_t columns, int64_t ld_from,
                                float* to, int64_t ld_to) {
  const int64_t whole_rows = rows / 4 * 4;
  const int64_t whole_columns = columns / 4 * 4;
  const bool tall =
      rows > columns;  // the short side goes inside: its lines stay in the first cache
  const int64_t outer = tall ? whole_rows : whole_columns;
  const int64_t inner = tall ? whole_columns : whole_rows;
  for (int64_t a = 0; a < outer; a += 4) {
    for (int64_t b = 0; b < inner; b += 4) {
      const int64_t i = tall ? a : b;
      const int64_t j = tall ? b : a;
      transpose_4x4(from + i * ld_from + j, ld_from, to + j * ld_to + i, ld_to);
    }
  }
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = i < whole_rows ? whole_columns : 0; j < columns; ++j) {
      to[j * ld_to + i] = from[i * ld_from + j];
    }
  }
}

/// In strips of 16 rows: more would fall into the same few sets of the first cache when the row
/// length is a power of two.
void transpose_range(const float* from, int64_t rows, int64_t columns, int64_t ld_from, float* to,
                     int64_t ld_to) {
  constexpr int64_t kStrip = 16;
  if (rows <= columns) {
    for (int64_t i = 0; i < rows; i += kStrip) {
      transpose_strip(from + i * ld_from, std::min(kStrip, rows - i), columns, ld_from, to + i,
                      ld_to);
    }
    return;
  }
  for (int64_t j = 0; j < columns; j += kStrip) {
    transpose_strip(from + j, rows, std::min(kStrip, columns - j), ld_from, to + j * ld_to, ld_to);
  }
}

/// out [kRows, kVectors vectors] = W [kRows, k] * panel [k, kVectors vectors], all sums in
/// registers.
template <int kRows, int kVectors>
HWY_INLINE void product_tile(const float* w, int64_t k, const float* panel, int64_t columns,
                             float* out) {
  const hn::ScalableTag<float> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  hn::Vec<decltype(d)> sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::Zero(d);
  }
  for (int64_t i = 0; i < k; ++i) {
    hn::Vec<decltype(d)> x[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) x[v] = hn::LoadU(d, panel + i * columns + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const auto weight = hn::Set(d, w[r * k + i]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(weight, x[v], sum[r][v]);
    }
    // W comes from memory when there are many experts: fetch the next tile's rows meanwhile.
    if (i % 16 == 0) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) hwy::Prefetch(w + (kRows + r) * k + i);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[r][v], d, out + r * columns + v * lanes);
  }
}

/// All n rows of W over kVectors vectors of the panel's columns. The last tile is moved back to be
/// whole: it computes some rows twice.
template <int kRows, int kVectors>
HWY_NOINLINE void product_columns(const float* w, int64_t n, int64_t k, const float* panel,
                                  int64_t columns, float* out) {
  if (n < kRows) {
    for (int64_t row = 0; row < n; ++row) {
      product_tile<1, kVectors>(w + row * k, k, panel, columns, out + row * columns);
    }
    return;
  }
  for (int64_t row = 0; row < n; row += kRows) {
    const int64_t first = std::min(row, n - kRows);
    product_tile<kRows, kVectors>(w + first * k, k, panel, columns, out + first * columns);
  }
}

void product(const float* w, int64_t n, int64_t k, const float* panel, int64_t columns,
             float* out) {
#if HWY_TARGET == HWY_AVX3
  // 32 registers: 24 sums, up to 4 vectors of the panel.
  switch (columns / 16) {
    case 1:
      return product_columns<12, 1>(w, n, k, panel, columns, out);
    case 2:
      return product_columns<12, 2>(w, n, k, panel, columns, out);
    case 3:
      return product_columns<8, 3>(w, n, k, panel, columns, out);
    default:
      return product_columns<6, 4>(w, n, k, panel, columns, out);
  }
#else
  // 16 registers: 12 sums, 2 vectors of the panel at a time.
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(hn::ScalableTag<float>()));
  for (int64_t at = 0; at < columns; at += 2 * lanes) {
    product_columns<6, 2>(w, n, k, panel + at, columns, out + at);
  }
#endif
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(transpose_range);
HWY_EXPORT(product);

void transpose(const float* x, int64_t rows, int64_t columns, int64_t ldx, float* y, int64_t ldy) {
  HWY_DYNAMIC_DISPATCH(transpose_range)(x, rows, columns, ldx, y, ldy);
}

void to_panel(const float* x, int64_t rows, int64_t width, int64_t ldx, float* panel) {
  const int64_t columns = padded_rows(rows);
  transpose(x, rows, width, ldx, panel, columns);
  for (int64_t i = 0; i < width; ++i) {
    std::fill(panel + i * columns + rows, panel + (i + 1) * columns, 0.0f);
  }
}

void from_panel(const float* panel, int64_t rows, int64_t width, int64_t ldy, float* y) {
  transpose(panel, width, rows, padded_rows(rows), y, ldy);
}

void panel_product(const float* w, int64_t n, int64_t k, const float* panel, int64_t columns,
                   float* out) {
  HWY_DYNAMIC_DISPATCH(product)(w, n, k, panel, columns, out);
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
