#include "cadre/kernels/blocks.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/kernels/panels_test_kit.h"

namespace cadre::kernels {
namespace {

class BlocksOf : public testing::TestWithParam<BlockType> {};
INSTANTIATE_TEST_SUITE_P(Formats, BlocksOf, testing::ValuesIn(kAllTypes), format_name);

// The formats' definitions once more, value by value and in double, from the bytes of one block.

using Bytes = const uint8_t*;

double half(Bytes at) {
  const int bits = at[0] | (at[1] << 8);
  const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
  const double size =
      exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25);
  return bits & 0x8000 ? -size : size;
}

int nibble(Bytes q, int i) { return i < 16 ? q[i] % 16 : q[i - 16] / 16; }

double q4_0(Bytes block, int i) { return half(block) * (nibble(block + 2, i) - 8); }
double q8_0(Bytes block, int i) { return half(block) * static_cast<int8_t>(block[2 + i]); }

double iq4_nl(Bytes block, int i) {
  const int values[] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  return half(block) * values[nibble(block + 2, i)];
}

double mxfp4(Bytes block, int i) {
  const int values[] = {0, 1, 2, 3, 4, 6, 8, 12};
  const int code = nibble(block + 1, i);
  return std::ldexp(code < 8 ? values[code] : -values[code - 8], block[0] - 127 - 1);
}

/// Scale and minimum of sub-block j from Q4_K's twelve bytes.
std::pair<int, int> scale_and_minimum(Bytes b, int j) {
  if (j < 4) return {b[j] % 64, b[j + 4] % 64};
  return {b[j + 4] % 16 + b[j - 4] / 64 * 16, b[j + 4] / 16 + b[j] / 64 * 16};
}

double q4_k(Bytes block, int i) {
  const int j = i / 32;
  const auto [scale, minimum] = scale_and_minimum(block + 4, j);
  const int byte = block[16 + j / 2 * 32 + i % 32];
  return half(block) * scale * (j % 2 == 0 ? byte % 16 : byte / 16) - half(block + 2) * minimum;
}

double q5_k(Bytes block, int i) {
  const int j = i / 32;
  const auto [scale, minimum] = scale_and_minimum(block + 4, j);
  const int byte = block[48 + j / 2 * 32 + i % 32];
  const int high = block[16 + i % 32] >> j & 1;
  const int q = (j % 2 == 0 ? byte % 16 : byte / 16) + 16 * high;
  return half(block) * scale * q - half(block + 2) * minimum;
}

double q6_k(Bytes block, int i) {
  const int part = i / 128, l = i % 32, row = i % 128 / 32;
  const Bytes low = block + 64 * part, high = block + 128 + 32 * part;
  const auto scale = static_cast<int8_t>(block[192 + 8 * part + l / 16 + 2 * row]);
  const int q[] = {low[l] % 16 + (high[l] & 3) * 16, low[l + 32] % 16 + (high[l] >> 2 & 3) * 16,
                   low[l] / 16 + (high[l] >> 4 & 3) * 16, low[l + 32] / 16 + (high[l] >> 6) * 16};
  return half(block + 208) * scale * (q[row] - 32);
}

/// Sixteen six-bit scales: low nibbles in bytes 0-7, pairs of high bits in bytes 8-11.
double q3_k(Bytes block, int i) {
  const int part = i / 128, l = i % 32, row = i % 128 / 32, j = i / 16;
  const Bytes scales = block + 96;
  const int low = j < 8 ? scales[j] % 16 : scales[j - 8] / 16;
  const int scale = low + 16 * (scales[8 + j % 4] >> (j / 4 * 2) & 3) - 32;
  const int q = block[32 + 32 * part + l] >> (2 * row) & 3;
  const bool high = block[l] >> (4 * part + row) & 1;
  return half(block + 108) * scale * (high ? q : q - 4);
}

double q2_k(Bytes block, int i) {
  const int part = i / 128, l = i % 32, row = i % 128 / 32;
  const int q = block[16 + 32 * part + l] >> (2 * row) & 3;
  const int scale = block[i / 16];
  return half(block + 80) * (scale % 16) * q - half(block + 82) * (scale / 16);
}

double f32(Bytes at, int) {
  float value;
  std::memcpy(&value, at, 4);
  return value;
}

double bf16(Bytes at, int) {
  const uint8_t bytes[] = {0, 0, at[0], at[1]};
  return f32(bytes, 0);
}

double f16(Bytes at, int) { return half(at); }

double decoded(BlockType type, Bytes block, int i) {
  using Decoder = double (*)(Bytes, int);
  const Decoder decoders[] = {f32,  f16,  bf16, q8_0, q4_0,   q2_k,
                              q3_k, q4_k, q5_k, q6_k, iq4_nl, mxfp4};
  return decoders[static_cast<int>(type)](block, i);
}

TEST_P(BlocksOf, DecodesAsItsDefinition) {
  const BlockType type = GetParam();
  const BlockInfo& info = block_info(type);
  const int64_t count = is_float(type) ? 100 : 40 * info.elements;
  const std::vector<std::byte> blocks = random_blocks(type, count, 11);
  // Files place blocks at any address.
  std::vector<std::byte> shifted(blocks.size() + 1);
  std::memcpy(shifted.data() + 1, blocks.data(), blocks.size());
  Floats values(count);
  dequantize(type, shifted.data() + 1, count, values.data());
  for (int64_t i = 0; i < count; ++i) {
    const auto* block = reinterpret_cast<Bytes>(blocks.data()) + i / info.elements * info.bytes;
    const double want = decoded(type, block, static_cast<int>(i % info.elements));
    ASSERT_NEAR(values[i], want, 4e-7 * (std::abs(want) + 1)) << i;
  }
}

TEST(Blocks, HandMadeQ4_0) {
  // d = 0.5; byte 3 = 0xf1: value 3 has code 1, value 19 code 15; all others have code 8 = 0.
  std::vector<uint8_t> block(18, 0x88);
  block[0] = 0x00;
  block[1] = 0x38;
  block[2 + 3] = 0xf1;
  Floats values(32), want(32);
  want[3] = -3.5f;
  want[19] = 3.5f;
  dequantize(BlockType::kQ4_0, reinterpret_cast<const std::byte*>(block.data()), 32, values.data());
  EXPECT_EQ(values, want);
}

TEST(Blocks, Mxfp4CoversAllExponents) {
  for (int e = 0; e < 256; ++e) {
    std::vector<uint8_t> block(17, 0x7f);  // codes 15 (-12) and 7 (12)
    block[0] = static_cast<uint8_t>(e);
    Floats values(32);
    dequantize(BlockType::kMXFP4, reinterpret_cast<const std::byte*>(block.data()), 32,
               values.data());
    const auto want = static_cast<float>(std::ldexp(12.0, e - 128));
    ASSERT_EQ(values[0], -want);
    ASSERT_EQ(values[31], want);
  }
}

TEST(Blocks, KnownByNameInAnyCase) {
  for (const BlockType type : kAllTypes) {
    EXPECT_EQ(block_type_named(block_info(type).name), type);
    EXPECT_EQ(block_info(type).type, type);
  }
  EXPECT_EQ(block_type_named("q4_k"), BlockType::kQ4_K);
  EXPECT_EQ(block_type_named("mxfp4"), BlockType::kMXFP4);
  for (const char* name : {"", "Q4", "Q4_KK", "IQ1_S"}) {
    EXPECT_THROW(block_type_named(name), UsageError) << name;
  }
}

TEST(Blocks, RowsAreWholeBlocks) {
  EXPECT_EQ(row_bytes(BlockType::kQ4_0, 64), 36);
  EXPECT_EQ(row_bytes(BlockType::kQ6_K, 512), 420);
  EXPECT_EQ(row_bytes(BlockType::kBF16, 3), 6);
  EXPECT_EQ(row_bytes(BlockType::kQ4_K, 0), 0);
  EXPECT_THROW(row_bytes(BlockType::kQ4_K, 32), UsageError);
  EXPECT_THROW(row_bytes(BlockType::kQ8_0, 33), UsageError);
  float value = 0;
  EXPECT_THROW(dequantize(BlockType::kQ8_0, nullptr, 1, &value), UsageError);
}

TEST(Halves, AllPatternsDecodeAndComeBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const uint8_t bytes[] = {static_cast<uint8_t>(bits), static_cast<uint8_t>(bits >> 8)};
    const float value = half_to_float(static_cast<uint16_t>(bits));
    if ((bits & 0x7c00) == 0x7c00) {
      ASSERT_EQ(std::isnan(value), (bits & 0x3ff) != 0) << bits;
      ASSERT_EQ(std::isinf(value), (bits & 0x3ff) == 0) << bits;
    } else {
      ASSERT_EQ(value, half(bytes)) << bits;
    }
    ASSERT_EQ(std::signbit(value), bits >> 15 == 1) << bits;
    if (!std::isnan(value)) {
      ASSERT_EQ(float_to_half(value), bits);
    }
  }
}

TEST(Halves, RoundToNearestTiesToEven) {
  EXPECT_EQ(float_to_half(1.0f + 0x1p-11f), 0x3c00);             // tie, even below
  EXPECT_EQ(float_to_half(1.0f + 3 * 0x1p-11f), 0x3c02);         // tie, even above
  EXPECT_EQ(float_to_half(1.0f + 0x1p-11f + 0x1p-20f), 0x3c01);  // above the tie
  EXPECT_EQ(float_to_half(65519.0f), 0x7bff);
  EXPECT_EQ(float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_half(-1e30f), 0xfc00);
  EXPECT_EQ(float_to_half(0x1p-25f), 0x0000);
  EXPECT_EQ(float_to_half(3 * 0x1p-25f), 0x0002);
  EXPECT_EQ(float_to_half(1e-30f), 0x0000);
  EXPECT_EQ(float_to_half(std::nextafter(0x1p-14f, 0.0f)), 0x0400);
  EXPECT_EQ(float_to_half(std::numeric_limits<float>::quiet_NaN()) & 0x7e00, 0x7e00);
}

}  // namespace
}  // namespace cadre::kernels
