#include <algorithm>
#include <array>
#include <cstring>

#include "cadre/base/error.h"
#include "cadre/kernels/panel_layout.h"
#include "cadre/kernels/panels.h"

namespace cadre::kernels {
namespace {

/// The codes of 32 columns of one row: words[k] holds columns 4 k .. 4 k + 3.
struct Codes {
  std::array<uint8_t, 32> code;

  uint32_t word(int k) const {
    uint32_t word;
    std::memcpy(&word, code.data() + 4 * k, 4);
    return word;
  }
};

void put_word(std::byte* plane, int64_t number, int64_t row, uint32_t word) {
  std::memcpy(plane + number * 64 + row * 4, &word, 4);
}

void put_half(std::byte* halves, int64_t row, uint16_t half) {
  std::memcpy(halves + row * 2, &half, 2);
}

std::byte* put_nibbles(const Codes& codes, int64_t row, std::byte* plane) {
  for (int k = 0; k < 4; ++k) {
    put_word(plane, k, row,
             (codes.word(k) & 0x0f0f0f0fu) | ((codes.word(k + 4) & 0x0f0f0f0fu) << 4));
  }
  return plane + 256;
}

std::byte* put_pairs(const Codes& codes, int shift, int64_t row, std::byte* plane) {
  for (int p = 0; p < 2; ++p) {
    uint32_t word = 0;
    for (int i = 0; i < 4; ++i) {
      word |= ((codes.word(4 * p + i) >> shift) & 0x03030303u) << (2 * i);
    }
    put_word(plane, p, row, word);
  }
  return plane + 128;
}

std::byte* put_bits(const Codes& codes, int shift, int64_t row, std::byte* plane) {
  uint32_t word = 0;
  for (int k = 0; k < 8; ++k) word |= ((codes.word(k) >> shift) & 0x01010101u) << k;
  put_word(plane, 0, row, word);
  return plane + 64;
}

void put_planes(const PanelLayout& layout, const Codes& codes, int64_t row, std::byte* plane) {
  if (layout.nibbles) plane = put_nibbles(codes, row, plane);
  if (layout.pairs) plane = put_pairs(codes, layout.nibbles ? 4 : 0, row, plane);
  if (layout.bits) plane = put_bits(codes, layout.nibbles ? 4 : 2, row, plane);
}

template <typename Block, typename Value>
Codes codes_of(const Block& block, int64_t b, Value value) {
  Codes codes;
  for (int64_t i = 0; i < 32; ++i) codes.code[i] = static_cast<uint8_t>(value(block, b, i));
  return codes;
}

/// Nibbles of 32 values in file order already are words of the panel's plane.
void copy_nibbles(const uint8_t (&nibbles)[16], int64_t row, std::byte* plane) {
  for (int k = 0; k < 4; ++k) std::memcpy(plane + k * 64 + row * 4, nibbles + 4 * k, 4);
}

/// Formats of 32 columns a block: scale, then codes.
void pack_block(const PanelLayout& layout, const BlockQ8_0& block, int64_t row, std::byte* out) {
  put_half(out, row, block.d);
  for (int k = 0; k < 8; ++k) {
    uint32_t word;
    std::memcpy(&word, block.q + 4 * k, 4);
    put_word(out + layout.scale_bytes, k, row, word ^ 0x80808080u);
  }
}

void pack_block(const PanelLayout& layout, const BlockQ4_0& block, int64_t row, std::byte* out) {
  put_half(out, row, block.d);
  copy_nibbles(block.q, row, out + layout.scale_bytes);
}

void pack_block(const PanelLayout& layout, const BlockMXFP4& block, int64_t row, std::byte* out) {
  out[row] = static_cast<std::byte>(block.e);
  copy_nibbles(block.q, row, out + layout.scale_bytes);
}

/// K-quants: `scales(b)` gives the two bytes of block b.
template <typename Block, typename Value, typename Scales>
void pack_super(const PanelLayout& layout, const Block& block, Value value, Scales scales,
                int64_t row, std::byte* out) {
  put_half(out, row, block.d);
  if constexpr (requires { block.dmin; }) put_half(out + 32, row, block.dmin);
  for (int64_t b = 0; b < 8; ++b) {
    std::byte* at = out + layout.block_at(b);
    const std::array<uint8_t, 2> s = scales(b);
    at[row] = static_cast<std::byte>(s[0]);
    at[16 + row] = static_cast<std::byte>(s[1]);
    put_planes(layout, codes_of(block, b, value), row, at + layout.scale_bytes);
  }
}

void pack_block(const PanelLayout& layout, const BlockQ4_K& block, int64_t row, std::byte* out) {
  const auto scales = [&](int64_t b) -> std::array<uint8_t, 2> {
    const ScaleMin s = scale_min_k4(block.scales, b);
    return {s.scale, s.minimum};
  };
  pack_super(layout, block, q4k_value, scales, row, out);
}

void pack_block(const PanelLayout& layout, const BlockQ5_K& block, int64_t row, std::byte* out) {
  const auto scales = [&](int64_t b) -> std::array<uint8_t, 2> {
    const ScaleMin s = scale_min_k4(block.scales, b);
    return {s.scale, s.minimum};
  };
  pack_super(layout, block, q5k_value, scales, row, out);
}

void pack_block(const PanelLayout& layout, const BlockQ6_K& block, int64_t row, std::byte* out) {
  const auto scales = [&](int64_t b) -> std::array<uint8_t, 2> {
    return {static_cast<uint8_t>(block.scales[2 * b]),
            static_cast<uint8_t>(block.scales[2 * b + 1])};
  };
  pack_super(layout, block, q6_value, scales, row, out);
}

void pack_block(const PanelLayout& layout, const BlockQ3_K& block, int64_t row, std::byte* out) {
  const auto scales = [&](int64_t b) -> std::array<uint8_t, 2> {
    return {static_cast<uint8_t>(scale_q3(block.scales, 2 * b)),
            static_cast<uint8_t>(scale_q3(block.scales, 2 * b + 1))};
  };
  pack_super(layout, block, q3_value, scales, row, out);
}

void pack_block(const PanelLayout& layout, const BlockQ2_K& block, int64_t row, std::byte* out) {
  const auto scales = [&](int64_t b) -> std::array<uint8_t, 2> {
    return {block.scales[2 * b], block.scales[2 * b + 1]};
  };
  pack_super(layout, block, q2_value, scales, row, out);
}

/// One panel: `rows` of its 16 rows are there.
template <typename Block>
void pack_quantised(BlockType type, int64_t rows, int64_t columns, const std::byte* blocks,
                    std::byte* out) {
  const PanelLayout layout = panel_layout(type);
  const int64_t stride = row_bytes(type, columns);
  for (int64_t s = 0; s < columns / layout.super_columns; ++s) {
    for (int64_t row = 0; row < rows; ++row) {
      Block block;
      std::memcpy(&block, blocks + row * stride + s * static_cast<int64_t>(sizeof(Block)),
                  sizeof(Block));
      pack_block(layout, block, row, out + s * layout.super_bytes());
    }
  }
}

template <typename Element>
void pack_floats(int64_t rows, int64_t columns, const std::byte* values, std::byte* out) {
  constexpr auto size = static_cast<int64_t>(sizeof(Element));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) {
      std::memcpy(out + (column * kPanelRows + row) * size,
                  values + (row * columns + column) * size, sizeof(Element));
    }
  }
}

void pack_panel(BlockType type, int64_t rows, int64_t columns, const std::byte* blocks,
                std::byte* out) {
  switch (type) {
    case BlockType::kF32:
      return pack_floats<uint32_t>(rows, columns, blocks, out);
    case BlockType::kF16:
    case BlockType::kBF16:
      return pack_floats<uint16_t>(rows, columns, blocks, out);
    case BlockType::kQ8_0:
      return pack_quantised<BlockQ8_0>(type, rows, columns, blocks, out);
    case BlockType::kQ4_0:
    case BlockType::kIQ4_NL:
      return pack_quantised<BlockQ4_0>(type, rows, columns, blocks, out);
    case BlockType::kMXFP4:
      return pack_quantised<BlockMXFP4>(type, rows, columns, blocks, out);
    case BlockType::kQ2_K:
      return pack_quantised<BlockQ2_K>(type, rows, columns, blocks, out);
    case BlockType::kQ3_K:
      return pack_quantised<BlockQ3_K>(type, rows, columns, blocks, out);
    case BlockType::kQ4_K:
      return pack_quantised<BlockQ4_K>(type, rows, columns, blocks, out);
    case BlockType::kQ5_K:
      return pack_quantised<BlockQ5_K>(type, rows, columns, blocks, out);
    case BlockType::kQ6_K:
      return pack_quantised<BlockQ6_K>(type, rows, columns, blocks, out);
  }
}

}  // namespace

int64_t panel_stride(BlockType type, int64_t columns) {
  const int64_t stored = row_bytes(type, columns);
  const PanelLayout layout = panel_layout(type);
  if (layout.is_float()) return kPanelRows * stored;
  return columns / layout.super_columns * layout.super_bytes();
}

int64_t panel_bytes(BlockType type, int64_t rows, int64_t columns) {
  return (rows + kPanelRows - 1) / kPanelRows * panel_stride(type, columns);
}

void pack_panels(BlockType type, int64_t rows, int64_t columns, const std::byte* blocks,
                 int64_t first_panel, int64_t panels, std::byte* out) {
  const int64_t stride = panel_stride(type, columns);
  const int64_t stored = row_bytes(type, columns);
  for (int64_t panel = first_panel; panel < first_panel + panels; ++panel) {
    const int64_t first_row = panel * kPanelRows;
    const int64_t here = std::min(kPanelRows, rows - first_row);
    // Rows that are not there have the scale 0 (2^-128 in MXFP4, with codes of 0).
    if (here < kPanelRows) std::memset(out + panel * stride, 0, static_cast<size_t>(stride));
    pack_panel(type, here, columns, blocks + first_row * stored, out + panel * stride);
  }
}

}  // namespace cadre::kernels
