#pragma once

/// Quantised matrix products on panels: 16 output rows interleaved, so that one load of weights
/// feeds 16 lanes and no lane is ever summed across.
///
/// Every product is defined by one canonical chain, so that any kernel, batch size, thread count
/// and instruction set gives the same bits. For output row r, token t and blocks b of 32 columns in
/// rising order:
///     I = integer dot of the block (sub-scales of a K-quant multiplied in, all exact)
///     M = integer sum of minimum times activation sums (formats with a minimum)
///     acc = fma(float(I), d[r, b] * dx[t, b], acc);  then  acc = fma(float(M), -(dmin[r, b] *
///     dx[t, b]), acc)
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
  const int8_t* q;      ///< [tokens, columns]
  const float* scale;   ///< [tokens, columns / 32]
  const int16_t* sums;  ///< [tokens, columns / 32, 2]
  const float*
      values;  ///< [tokens, columns]: what float formats multiply; may be null for quantised ones
  int64_t columns;
};

/// Quantises x [tokens, columns] (columns a multiple of 32; the caller pads with zeros).
void quantize_activations(const float* x, int64_t tokens, int64_t columns, int8_t* q, float* scale,
                          int16_t* sums);

/// A weight matrix [rows, columns] in panel form. Rows are padded to 16 with zeros, columns to 32
/// (256 for K-quants).
struct PanelMatrix {
  BlockType type;
  int64_t rows, columns;
  const std::byte* data;
};

/// Bytes of the panel form.
int64_t panel_bytes(BlockType type, int64_t rows, int64_t columns);
/// Bytes of one panel of 16 rows: panel p stands at p * panel_stride().
int64_t panel_stride(BlockType type, int64_t columns);

/// Rearranges stored rows (row_bytes() each) into panels. `first_panel` and `panels` choose a part,
/// for parallel packing.
void pack_panels(BlockType type, int64_t rows, int64_t columns, const std::byte* blocks,
                 int64_t first_panel, int64_t panels, std::byte* out);

/// y[t, r] = W x for the rows of panels [first, last), tokens [0, tokens): single-threaded; the
/// caller splits panels over threads. y has `y_stride` floats from token to token and at least
/// `rows` columns.
void panel_matmul(const PanelMatrix& weights, const QuantizedActivations& x, int64_t tokens,
                  int64_t first_panel, int64_t last_panel, float* y, int64_t y_stride);

/// The canonical chain in plain scalar code: what every kernel must equal bit for bit.
void panel_matmul_reference(const PanelMatrix& weights, const QuantizedActivations& x,
                            int64_t tokens, int64_t first_panel, int64_t last_panel, float* y,
                            int64_t y_stride);

}  // namespace cadre::kernels
