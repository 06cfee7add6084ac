// The definition of panel_matmul and quantize_activations, one output at a time.

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "cadre/kernels/panel_layout.h"
#include "cadre/kernels/panel_product.h"
#include "cadre/kernels/panels.h"

namespace cadre::kernels {
namespace {

uint8_t byte_at(const std::byte* at, int64_t i) { return static_cast<uint8_t>(at[i]); }

float half_at(const std::byte* halves, int64_t i) {
  uint16_t half;
  std::memcpy(&half, halves + 2 * i, 2);
  return half_to_float(half);
}

/// w of column i of a block, as an integer.
int weight(const PanelLayout& layout, const std::byte* plane, int64_t row, int64_t i) {
  const int64_t k = i / 4, byte = row * 4 + i % 4;
  int code = 0;
  int shift = 0;
  if (layout.bytes) code = byte_at(plane, k * 64 + byte);
  if (layout.nibbles) {
    code = (byte_at(plane, k % 4 * 64 + byte) >> (k < 4 ? 0 : 4)) & 15;
    plane += 256;
    shift = 4;
  }
  if (layout.pairs) {
    code |= ((byte_at(plane, k / 4 * 64 + byte) >> (2 * (k % 4))) & 3) << shift;
    plane += 128;
    shift += 2;
  }
  if (layout.bits) code |= ((byte_at(plane, byte) >> k) & 1) << shift;
  return (layout.has_table ? layout.table[code] : code) - layout.offset;
}

/// I, M, d and dmin of one row and block.
struct Terms {
  int32_t product = 0, minimum = 0;
  float d = 0, dmin = 0;
};

Terms block_terms(const PanelLayout& layout, const std::byte* header, const std::byte* block,
                  int64_t row, const int8_t* q, const int16_t* sums) {
  int32_t dot[2] = {0, 0};
  for (int64_t i = 0; i < 32; ++i) {
    dot[i / 16] += weight(layout, block + layout.scale_bytes, row, i) * q[i];
  }
  const uint8_t s0 = byte_at(block, row), s1 = byte_at(block, 16 + row);
  switch (layout.scale) {
    case PanelScale::kNone:
      break;
    case PanelScale::kHalf:
      return {.product = dot[0] + dot[1], .d = half_at(block, row)};
    case PanelScale::kExponent:
      return {.product = dot[0] + dot[1], .d = std::bit_cast<float>(exponent_bits(s0))};
    case PanelScale::kWithMinima:
      return {.product = dot[0] + dot[1],
              .minimum = sums[0] + sums[1],
              .d = half_at(header, row) * static_cast<float>(s0),
              .dmin = half_at(header + 32, row) * static_cast<float>(s1)};
    case PanelScale::kHalves:
      return {.product = static_cast<int8_t>(s0) * dot[0] + static_cast<int8_t>(s1) * dot[1],
              .d = half_at(header, row)};
    case PanelScale::kHalvesWithMinima:
      return {.product = (s0 & 15) * dot[0] + (s1 & 15) * dot[1],
              .minimum = (s0 >> 4) * sums[0] + (s1 >> 4) * sums[1],
              .d = half_at(header, row),
              .dmin = half_at(header + 32, row)};
  }
  return {};
}

float quantised_output(const PanelLayout& layout, const std::byte* panel, int64_t row,
                       int64_t columns, const int8_t* q, const float* scale, const int16_t* sums) {
  float acc = 0;
  for (int64_t b = 0; b < columns / kActivationBlock; ++b) {
    const Terms terms = block_terms(layout, panel + layout.header_at(b), panel + layout.block_at(b),
                                    row, q + 32 * b, sums + 2 * b);
    acc = std::fma(static_cast<float>(terms.product), terms.d * scale[b], acc);
    if (layout.has_minima()) {
      acc = std::fma(static_cast<float>(terms.minimum), -(terms.dmin * scale[b]), acc);
    }
  }
  return acc;
}

float float_output(BlockType type, const std::byte* panel, int64_t row, int64_t columns,
                   const float* x) {
  const int64_t bytes = block_info(type).bytes;
  float acc = 0;
  for (int64_t c = 0; c < columns; ++c) {
    float w;
    dequantize(type, panel + (c * kPanelRows + row) * bytes, 1, &w);
    acc = std::fma(w, x[c], acc);
  }
  return acc;
}

void quantize_block(const float* x, int8_t* q, float* scale, int16_t* sums) {
  uint32_t most = 0;
  for (int i = 0; i < 32; ++i) {
    most = std::max(most, std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu);
  }
  const float amax = std::bit_cast<float>(most);
  const bool finite = most < 0x7f800000u;
  const bool usable = finite && amax >= 1e-30f;
  *scale = usable ? amax / 127.0f : finite ? 0.0f : std::numeric_limits<float>::quiet_NaN();
  const float inverse = usable ? 127.0f / amax : 0.0f;
  sums[0] = sums[1] = 0;
  for (int i = 0; i < 32; ++i) {
    q[i] = usable ? static_cast<int8_t>(std::nearbyint(x[i] * inverse)) : int8_t{0};
    sums[i / 16] = static_cast<int16_t>(sums[i / 16] + q[i]);
  }
}

}  // namespace

void quantize_activations_reference(const float* x, int64_t tokens, int64_t columns, int8_t* q,
                                    float* scale, int16_t* sums) {
  for (int64_t b = 0; b < tokens * (columns / kActivationBlock); ++b) {
    quantize_block(x + 32 * b, q + 32 * b, scale + b, sums + 2 * b);
  }
}

void panel_product_reference(const PanelMatrix& weights, const QuantizedActivations& x,
                             const PanelPart& part, const PanelOutput& output) {
  const PanelLayout layout = panel_layout(weights.type);
  const int64_t stride = panel_stride(weights.type, weights.columns);
  const int64_t columns = weights.columns, blocks = columns / kActivationBlock;
  const int64_t first_row = part.first_panel * kPanelRows;
  const int64_t last_row = std::min(weights.rows, part.last_panel * kPanelRows);
  for (int64_t t = 0; t < part.last_token - part.first_token; ++t) {
    const int64_t token = part.first_token + t;
    const int64_t at = x.rows == nullptr ? token : x.rows[token];
    float* out = output.out + (output.rows == nullptr ? t : output.rows[t]) * output.stride;
    for (int64_t r = first_row; r < last_row; ++r) {
      const std::byte* panel = weights.data + r / kPanelRows * stride;
      out[r - first_row] =
          layout.is_float()
              ? float_output(weights.type, panel, r % kPanelRows, columns, x.values + at * columns)
              : quantised_output(layout, panel, r % kPanelRows, columns, x.q + at * columns,
                                 x.scale + at * blocks, x.sums + at * blocks * 2);
    }
  }
}

void panel_matmul_reference(const PanelMatrix& weights, const QuantizedActivations& x,
                            int64_t tokens, int64_t first_panel, int64_t last_panel, float* y,
                            int64_t y_stride) {
  panel_product_reference(weights, x, {0, tokens, first_panel, last_panel},
                          {y + first_panel * kPanelRows, y_stride});
}

}  // namespace cadre::kernels
