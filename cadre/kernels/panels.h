#pragma once

/// Quantised matrix products on panels: 16 output rows interleaved, so that one load of weights
/// feeds 16 lanes and no lane is ever summed across.
///
/// Every product is defined by one canonical chain, so that any kernel, batch size, thread count
/// and instruction set gives the same bits. For output row r, token t and blocks b of 32 columns in
/// rising order, from acc = 0, with one rounding for each fma, product and conversion:
///     acc = fma(float(I), d[r, b] * dx[t, b], acc)
///     acc = fma(float(M), -(dmin[r, b] * dx[t, b]), acc)        (formats with a minimum)
/// I and M are integers, exact:
///     Q4_0, Q8_0, IQ4_NL, MXFP4: I = sum w x over the block, d the block's scale.
///     Q4_K, Q5_K: I = sum q x, M = sum x, d = d_super sc_b, dmin = dmin_super m_b (both exact in
///     float: 11 bits times 6).
///     Q6_K, Q3_K: I = s_0 sum w x over the first 16 columns + s_1 sum w x over the others.
///     Q2_K: I as Q6_K's, M = m_0 sum x over the first 16 columns + m_1 sum x over the others.
/// Float formats (F32, F16, BF16): acc = fma(w, x, acc) over columns in rising order.

#include <cstddef>
#include <cstdint>

#include "cadre/kernels/blocks.h"

namespace cadre::kernels {

constexpr int64_t kPanelRows = 16;
constexpr int64_t kActivationBlock = 32;

/// Activations in 8 bits: per 32 values a scale (largest magnitude / 127) and the sums of both
/// halves of 16.
struct QuantizedActivations {
  const int8_t* q;      ///< [tokens, columns], in [-127, 127]; may be null for float weights
  const float* scale;   ///< [tokens, columns / 32]
  const int16_t* sums;  ///< [tokens, columns / 32, 2]
  const float* values;  ///< [tokens, columns]: what float weights multiply; else may be null
  int64_t columns;
  const int32_t* rows = nullptr;  ///< token t is row rows[t] of the arrays; null: row t
};

/// Quantises x [tokens, columns], columns a multiple of 32: q = x * (127 / amax) rounded to nearest
/// even. A block whose magnitudes all are below 1e-30 becomes zeros; one with a NaN or an infinity
/// gets a NaN as its scale, so that a diverged model shows.
void quantize_activations(const float* x, int64_t tokens, int64_t columns, int8_t* q, float* scale,
                          int16_t* sums);

/// The same in plain scalar code: what quantize_activations must equal bit for bit.
void quantize_activations_reference(const float* x, int64_t tokens, int64_t columns, int8_t* q,
                                    float* scale, int16_t* sums);

/// A weight matrix [rows, columns] in panel form. Rows are padded to 16 with zeros; columns are a
/// multiple of the format's block (row_bytes() checks that), `data` may stand at any address.
struct PanelMatrix {
  BlockType type;
  int64_t rows, columns;
  const std::byte* data;
};

/// Bytes of the panel form, per weight: as the stored form but for Q4_K and Q5_K (2.8 % and 2.3 %
/// more: scales of 6 bits become bytes) and Q3_K (3.6 % more).
int64_t panel_bytes(BlockType type, int64_t rows, int64_t columns);
/// Bytes of one panel of 16 rows: panel p stands at p * panel_stride().
int64_t panel_stride(BlockType type, int64_t columns);

/// Rearranges stored rows (row_bytes() each) into panels. `first_panel` and `panels` choose a part,
/// for parallel packing; `blocks` and `out` are those of the whole matrix. Throws UsageError when
/// columns do not fit the format.
void pack_panels(BlockType type, int64_t rows, int64_t columns, const std::byte* blocks,
                 int64_t first_panel, int64_t panels, std::byte* out);

/// y[t, r] = W x for the rows of panels [first, last), tokens [0, tokens): single-threaded; the
/// caller splits panels over threads. y has `y_stride` floats from token to token and at least
/// `rows` columns. x.columns must be the weights'.
void panel_matmul(const PanelMatrix& weights, const QuantizedActivations& x, int64_t tokens,
                  int64_t first_panel, int64_t last_panel, float* y, int64_t y_stride);

/// The canonical chain in plain scalar code: what every kernel must equal bit for bit.
void panel_matmul_reference(const PanelMatrix& weights, const QuantizedActivations& x,
                            int64_t tokens, int64_t first_panel, int64_t last_panel, float* y,
                            int64_t y_stride);

}  // namespace cadre::kernels
