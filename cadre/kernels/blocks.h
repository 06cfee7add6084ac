#pragma once

/// The block formats weights are stored in: what a block holds, and plain decoding and encoding.

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace cadre::kernels {

enum class BlockType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kQ8_0,
  kQ4_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kMXFP4
};

struct BlockInfo {
  BlockType type;
  std::string_view name;  ///< "Q4_K"
  int64_t elements;       ///< values a block
  int64_t bytes;          ///< bytes a block
};

const BlockInfo& block_info(BlockType type);
/// By name, any case. Throws UsageError that lists the known names.
BlockType block_type_named(std::string_view name);
/// Bytes of a row of `columns` values; columns must be a multiple of the block's elements (throws
/// Error otherwise).
int64_t row_bytes(BlockType type, int64_t columns);

/// Decodes `count` values (a multiple of the block's elements).
void dequantize(BlockType type, const std::byte* blocks, int64_t count, float* values);

/// Encodes `count` finite values (what becomes of a NaN or an infinity is only defined for kF32,
/// kF16 and kBF16; scales are half floats, so that blocks beyond 65504 times their largest level do
/// not fit either). kF32, kF16, kBF16, kQ8_0, kQ4_0, kQ4_K and kQ6_K; others throw UsageError.
/// K-quants search the scale and minimum of each sub-block for the least squared error.
void quantize(BlockType type, const float* values, int64_t count, std::byte* blocks);

/// IEEE half precision, exact; NaN stays NaN. Without branches, so that loops become vectors: the
/// exponent moves by a product, exact for subnormal halves too; infinity and NaN get theirs after.
inline float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t magnitude = half & 0x7fffu;
  const float value = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  const uint32_t special = magnitude >= 0x7c00u ? 0x7f800000u : 0u;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | special | sign);
}

/// Nearest half, ties to even; beyond 65504 infinity.
uint16_t float_to_half(float value);

}  // namespace cadre::kernels
