#include "cadre/kernels/blocks.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>

#include "cadre/base/error.h"
#include "cadre/kernels/block_layouts.h"

namespace cadre::kernels {
namespace {

constexpr std::array<BlockInfo, 12> kBlocks = {{
    {BlockType::kF32, "F32", 1, 4},
    {BlockType::kF16, "F16", 1, 2},
    {BlockType::kBF16, "BF16", 1, 2},
    {BlockType::kQ8_0, "Q8_0", 32, 34},
    {BlockType::kQ4_0, "Q4_0", 32, 18},
    {BlockType::kQ2_K, "Q2_K", 256, 84},
    {BlockType::kQ3_K, "Q3_K", 256, 110},
    {BlockType::kQ4_K, "Q4_K", 256, 144},
    {BlockType::kQ5_K, "Q5_K", 256, 176},
    {BlockType::kQ6_K, "Q6_K", 256, 210},
    {BlockType::kIQ4_NL, "IQ4_NL", 32, 18},
    {BlockType::kMXFP4, "MXFP4", 32, 17},
}};

bool same_letters(std::string_view a, std::string_view b) {
  const auto upper = [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; };
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                            [&](char x, char y) { return upper(x) == upper(y); });
}

/// Blocks may stand at any address of a mapped file: copied out before use.
template <typename Block>
Block load(const std::byte* bytes) {
  Block block;
  std::memcpy(&block, bytes, sizeof(Block));
  return block;
}

template <typename Block, typename Decode>
void each_block(const std::byte* bytes, int64_t count, int64_t elements, float* values,
                Decode decode) {
  for (int64_t i = 0; i < count; i += elements, bytes += sizeof(Block)) {
    decode(load<Block>(bytes), values + i);
  }
}

void decode_q8_0(const BlockQ8_0& block, float* y) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(block.q[i]);
}

void decode_q4_0(const BlockQ4_0& block, float* y) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < 16; ++i) y[i] = d * static_cast<float>((block.q[i] & 15) - 8);
  for (int i = 0; i < 16; ++i) y[i + 16] = d * static_cast<float>((block.q[i] >> 4) - 8);
}

void decode_iq4_nl(const BlockQ4_0& block, float* y) {
  const float d = half_to_float(block.d);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(kIq4Values[nibble_of(block.q, i)]);
}

void decode_mxfp4(const BlockMXFP4& block, float* y) {
  const float d = std::ldexp(0.5f, block.e - 127);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(kMxfp4Values[nibble_of(block.q, i)]);
}

/// Q4_K and Q5_K: the same scales, `value` reads the quant.
template <typename Block, typename Value>
void decode_with_minima(const Block& block, Value value, float* y) {
  const float d = half_to_float(block.d), dmin = half_to_float(block.dmin);
  for (int64_t b = 0; b < 8; ++b, y += 32) {
    const ScaleMin s = scale_min_k4(block.scales, b);
    const float scale = d * s.scale, minimum = dmin * s.minimum;
    for (int64_t l = 0; l < 32; ++l) {
      y[l] = scale * static_cast<float>(value(block, b, l)) - minimum;
    }
  }
}

/// Q6_K and Q3_K: a scale for 16 values, no minimum.
template <typename Block, typename Scale, typename Value>
void decode_halves(const Block& block, Scale scale_of, Value value, int offset, float* y) {
  const float d = half_to_float(block.d);
  for (int64_t half = 0; half < 16; ++half) {
    const float scale = d * scale_of(block, half);
    for (int64_t l = half % 2 * 16; l < half % 2 * 16 + 16; ++l) {
      y[half / 2 * 32 + l] = scale * static_cast<float>(value(block, half / 2, l) - offset);
    }
  }
}

void decode_q6_k(const BlockQ6_K& block, float* y) {
  const auto scale = [](const BlockQ6_K& from, int64_t half) { return from.scales[half]; };
  decode_halves(block, scale, q6_value, 32, y);
}

void decode_q3_k(const BlockQ3_K& block, float* y) {
  const auto scale = [](const BlockQ3_K& from, int64_t half) {
    return scale_q3(from.scales, half);
  };
  decode_halves(block, scale, q3_value, 4, y);
}

void decode_q2_k(const BlockQ2_K& block, float* y) {
  const float d = half_to_float(block.d), dmin = half_to_float(block.dmin);
  for (int64_t half = 0; half < 16; ++half) {
    const uint8_t s = block.scales[half];
    const float scale = d * (s & 15), minimum = dmin * (s >> 4);
    for (int64_t l = half % 2 * 16; l < half % 2 * 16 + 16; ++l) {
      y[half / 2 * 32 + l] = scale * static_cast<float>(q2_value(block, half / 2, l)) - minimum;
    }
  }
}

}  // namespace

const BlockInfo& block_info(BlockType type) { return kBlocks.at(static_cast<size_t>(type)); }

BlockType block_type_named(std::string_view name) {
  std::string known;
  for (const BlockInfo& info : kBlocks) {
    if (same_letters(info.name, name)) return info.type;
    known += (known.empty() ? "" : ", ") + std::string(info.name);
  }
  throw UsageError("unknown weight format '{}'; known are {}", name, known);
}

int64_t row_bytes(BlockType type, int64_t columns) {
  const BlockInfo& info = block_info(type);
  if (columns % info.elements != 0) {
    throw UsageError("rows of {} values do not fit {}, whose blocks hold {}", columns, info.name,
                     info.elements);
  }
  return columns / info.elements * info.bytes;
}

void dequantize(BlockType type, const std::byte* blocks, int64_t count, float* values) {
  row_bytes(type, count);
  switch (type) {
    case BlockType::kF32:
      std::memcpy(values, blocks, static_cast<size_t>(count) * sizeof(float));
      return;
    case BlockType::kF16:
      for (int64_t i = 0; i < count; ++i) values[i] = half_to_float(load<uint16_t>(blocks + 2 * i));
      return;
    case BlockType::kBF16:
      for (int64_t i = 0; i < count; ++i) {
        values[i] = std::bit_cast<float>(uint32_t{load<uint16_t>(blocks + 2 * i)} << 16);
      }
      return;
    case BlockType::kQ8_0:
      return each_block<BlockQ8_0>(blocks, count, kSmallBlock, values, decode_q8_0);
    case BlockType::kQ4_0:
      return each_block<BlockQ4_0>(blocks, count, kSmallBlock, values, decode_q4_0);
    case BlockType::kIQ4_NL:
      return each_block<BlockQ4_0>(blocks, count, kSmallBlock, values, decode_iq4_nl);
    case BlockType::kMXFP4:
      return each_block<BlockMXFP4>(blocks, count, kSmallBlock, values, decode_mxfp4);
    case BlockType::kQ4_K:
      return each_block<BlockQ4_K>(blocks, count, kSuperBlock, values, [](const auto& b, float* y) {
        decode_with_minima(b, q4k_value, y);
      });
    case BlockType::kQ5_K:
      return each_block<BlockQ5_K>(blocks, count, kSuperBlock, values, [](const auto& b, float* y) {
        decode_with_minima(b, q5k_value, y);
      });
    case BlockType::kQ6_K:
      return each_block<BlockQ6_K>(blocks, count, kSuperBlock, values, decode_q6_k);
    case BlockType::kQ3_K:
      return each_block<BlockQ3_K>(blocks, count, kSuperBlock, values, decode_q3_k);
    case BlockType::kQ2_K:
      return each_block<BlockQ2_K>(blocks, count, kSuperBlock, values, decode_q2_k);
  }
}

uint16_t float_to_half(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7e00u;   // NaN
  if (magnitude >= 0x477ff000u) return sign | 0x7c00u;  // rounds beyond 65504
  if (magnitude < 0x38800000u) {  // below 2^-14: a multiple of 2^-24, ties to even
    const float scaled = std::bit_cast<float>(magnitude) * 16777216.0f;
    return sign | static_cast<uint16_t>(std::lrint(scaled));
  }
  const uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
  return sign | static_cast<uint16_t>((rounded - (112u << 23)) >> 13);
}

}  // namespace cadre::kernels
