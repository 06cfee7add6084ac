#pragma once

/// Where everything stands inside a panel (panels.h): shared by packing, the scalar definition and
/// the vector kernels.
///
/// A panel is a row of super-blocks (256 columns of a K-quant, 32 of the others); a super-block is
/// a header and one block for every 32 columns; a block is its scales and up to four planes of
/// codes. In all planes byte c of 32-bit lane r belongs to row r, and "vector k" means columns 4 k
/// .. 4 k + 3:
///   bytes    8 x 64 B: vector k
///   nibbles  4 x 64 B: vector k in the low nibbles of 64 B number k, vector k + 4 in the high ones
///   pairs    2 x 64 B: bits 2 i, 2 i + 1 of number p are vector 4 p + i
///   bits     1 x 64 B: bit k is vector k
/// A code is nibble | bit << 4 (Q5_K), nibble | pair << 4 (Q6_K), pair | bit << 2 (Q3_K).

#include <array>
#include <cstddef>
#include <cstdint>

#include "cadre/kernels/block_layouts.h"
#include "cadre/kernels/panels.h"

namespace cadre::kernels {

enum class PanelScale : uint8_t {
  kNone,        ///< float formats: a column is 16 numbers
  kHalf,        ///< block: 16 half floats d
  kExponent,    ///< block: 16 bytes e, d = 2^(e - 128)
  kWithMinima,  ///< header: 16 half floats d, 16 dmin; block: 16 bytes scale, 16 bytes minimum
  kHalves,      ///< header: 16 half floats d; block: 16 signed scales of columns 0-15, 16 of 16-31
  kHalvesWithMinima  ///< header as kWithMinima; block as kHalves, scale | minimum << 4
};

struct PanelLayout {
  PanelScale scale;
  int64_t super_columns;             ///< columns of a super-block; 1 for float formats
  int64_t header_bytes;              ///< of a super-block
  int64_t scale_bytes;               ///< of a block
  bool bytes, nibbles, pairs, bits;  ///< the planes a block has
  int offset;                        ///< weight = code - offset (after the table, if there is one)
  std::array<uint8_t, 16> table;     ///< of IQ4_NL and MXFP4: nibble to code
  bool has_table;

  constexpr int64_t block_bytes() const {
    return scale_bytes + (bytes ? 512 : 0) + (nibbles ? 256 : 0) + (pairs ? 128 : 0) +
           (bits ? 64 : 0);
  }
  constexpr int64_t super_bytes() const {
    return header_bytes + super_columns / kSmallBlock * block_bytes();
  }
  constexpr bool is_float() const { return scale == PanelScale::kNone; }
  constexpr bool is_super() const { return super_columns == kSuperBlock; }
  constexpr bool has_minima() const {
    return scale == PanelScale::kWithMinima || scale == PanelScale::kHalvesWithMinima;
  }
  /// Of block b of a panel, counted over all columns.
  constexpr int64_t header_at(int64_t b) const {
    return is_super() ? b / 8 * super_bytes() : b * super_bytes();
  }
  constexpr int64_t block_at(int64_t b) const {
    return is_super() ? b / 8 * super_bytes() + header_bytes + b % 8 * block_bytes()
                      : b * super_bytes();
  }
};

/// kIq4Values and kMxfp4Values made unsigned.
constexpr std::array<uint8_t, 16> shifted(const int8_t (&values)[16], int offset) {
  std::array<uint8_t, 16> table = {};
  for (int i = 0; i < 16; ++i) table[i] = static_cast<uint8_t>(values[i] + offset);
  return table;
}

constexpr PanelLayout panel_layout(BlockType type) {
  constexpr std::array<uint8_t, 16> none = {};
  switch (type) {
    case BlockType::kF32:
    case BlockType::kF16:
    case BlockType::kBF16:
      break;
    case BlockType::kQ8_0:
      return {PanelScale::kHalf, 32, 0, 32, true, false, false, false, 128, none, false};
    case BlockType::kQ4_0:
      return {PanelScale::kHalf, 32, 0, 32, false, true, false, false, 8, none, false};
    case BlockType::kIQ4_NL:
      return {PanelScale::kHalf,        32,  0, 32, false, true, false, false, 128,
              shifted(kIq4Values, 128), true};
    case BlockType::kMXFP4:
      return {PanelScale::kExponent,     32,  0, 16, false, true, false, false, 12,
              shifted(kMxfp4Values, 12), true};
    case BlockType::kQ4_K:
      return {PanelScale::kWithMinima, 256, 64, 32, false, true, false, false, 0, none, false};
    case BlockType::kQ5_K:
      return {PanelScale::kWithMinima, 256, 64, 32, false, true, false, true, 0, none, false};
    case BlockType::kQ6_K:
      return {PanelScale::kHalves, 256, 32, 32, false, true, true, false, 32, none, false};
    case BlockType::kQ3_K:
      return {PanelScale::kHalves, 256, 32, 32, false, false, true, true, 4, none, false};
    case BlockType::kQ2_K:
      return {
          PanelScale::kHalvesWithMinima, 256, 64, 32, false, false, true, false, 0, none, false};
  }
  return {PanelScale::kNone, 1, 0, 0, false, false, false, false, 0, none, false};
}

/// d of MXFP4's exponent byte: 2^(e - 128), exact down to the subnormals of e < 2.
constexpr uint32_t exponent_bits(uint8_t e) {
  return e < 2 ? uint32_t{0x00200000} << e : uint32_t{e - 1u} << 23;
}

}  // namespace cadre::kernels
