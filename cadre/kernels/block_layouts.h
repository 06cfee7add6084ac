#pragma once

/// The stored layouts of quantised blocks, as GGUF files hold them (little-endian, packed).

#include <cstdint>

namespace cadre::kernels {

constexpr int64_t kSuperBlock = 256;  ///< values of a K-quant's block
constexpr int64_t kSmallBlock = 32;   ///< values of the other quantised blocks

/// w = d q.
struct BlockQ8_0 {
  uint16_t d;
  int8_t q[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

/// w = d (q - 8); byte j holds value j (low nibble) and value j + 16 (high). IQ4_NL has the same
/// layout with w = d kIq4Values[q].
struct BlockQ4_0 {
  uint16_t d;
  uint8_t q[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

/// w = 2^(e - 127) / 2 * kMxfp4Values[q] (the table holds doubled values); nibbles as in Q4_0.
struct BlockMXFP4 {
  uint8_t e;
  uint8_t q[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

/// 8 sub-blocks of 32: w = d sc_j q - dmin m_j, scales and minima of 6 bits in `scales`
/// (scale_min_k4). Bytes 32 g .. 32 g + 31 hold sub-block 2 g (low nibbles) and 2 g + 1 (high
/// nibbles).
struct BlockQ4_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t q[128];
};
static_assert(sizeof(BlockQ4_K) == 144);

/// As Q4_K with a fifth bit: bit j of high[i] belongs to value i of sub-block j.
struct BlockQ5_K {
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t high[32];
  uint8_t q[128];
};
static_assert(sizeof(BlockQ5_K) == 176);

/// 16 sub-blocks of 16: w = d s_j (q - 32), q from four low bits and two high bits.
struct BlockQ6_K {
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ6_K) == 210);

/// 16 sub-blocks of 16: w = d (sc_j - 32) (q - 4), q from two low bits and one bit of `high`;
/// scales of 6 bits.
struct BlockQ3_K {
  uint8_t high[32];
  uint8_t q[64];
  uint8_t scales[12];
  uint16_t d;
};
static_assert(sizeof(BlockQ3_K) == 110);

/// 16 sub-blocks of 16: w = d (scales_j & 15) q - dmin (scales_j >> 4), q of two bits.
struct BlockQ2_K {
  uint8_t scales[16];
  uint8_t q[64];
  uint16_t d, dmin;
};
static_assert(sizeof(BlockQ2_K) == 84);

/// The sixteen values of IQ4_NL's nibbles.
inline constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
/// Twice the sixteen values of MXFP4's nibbles (sign, two bits of exponent, one of mantissa).
inline constexpr int8_t kMxfp4Values[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};

/// Scale and minimum, 0 to 63, of sub-block j in 0 .. 7 of Q4_K and Q5_K.
struct ScaleMin {
  uint8_t scale, minimum;
};
inline ScaleMin scale_min_k4(const uint8_t* b, int64_t j) {
  if (j < 4) return {static_cast<uint8_t>(b[j] & 63), static_cast<uint8_t>(b[j + 4] & 63)};
  return {static_cast<uint8_t>((b[j + 4] & 15) | ((b[j - 4] >> 6) << 4)),
          static_cast<uint8_t>((b[j + 4] >> 4) | ((b[j] >> 6) << 4))};
}

/// Scale, -32 to 31, of sub-block j in 0 .. 15 of Q3_K: four low bits in the first eight bytes, two
/// high bits in the last four.
inline int8_t scale_q3(const uint8_t* b, int64_t j) {
  const int low = j < 8 ? b[j] & 15 : b[j - 8] >> 4;
  const int high = (b[8 + j % 4] >> (2 * (j / 4))) & 3;
  return static_cast<int8_t>((low | (high << 4)) - 32);
}

// Quants of a K-quant by sub-block b in 0 .. 7 and value l in 0 .. 31 of it: all but the last index
// is fixed in a loop over l, so that the compiler turns it into vectors.

/// q of Q6_K, 0 to 63.
inline int q6_value(const BlockQ6_K& block, int64_t b, int64_t l) {
  const int64_t half = b / 4, row = b % 4;
  const int low = (block.low[half * 64 + row % 2 * 32 + l] >> (row < 2 ? 0 : 4)) & 15;
  const int high = (block.high[half * 32 + l] >> (2 * row)) & 3;
  return low | (high << 4);
}

/// q of Q3_K, 0 to 7.
inline int q3_value(const BlockQ3_K& block, int64_t b, int64_t l) {
  const int low = (block.q[b / 4 * 32 + l] >> (2 * (b % 4))) & 3;
  return low | (((block.high[l] >> b) & 1) << 2);
}

/// q of Q2_K, 0 to 3.
inline int q2_value(const BlockQ2_K& block, int64_t b, int64_t l) {
  return (block.q[b / 4 * 32 + l] >> (2 * (b % 4))) & 3;
}

/// q of Q4_K, 0 to 15.
inline int q4k_value(const BlockQ4_K& block, int64_t b, int64_t l) {
  return (block.q[b / 2 * 32 + l] >> (b % 2 * 4)) & 15;
}

/// q of Q5_K, 0 to 31.
inline int q5k_value(const BlockQ5_K& block, int64_t b, int64_t l) {
  const int low = (block.q[b / 2 * 32 + l] >> (b % 2 * 4)) & 15;
  return low | (((block.high[l] >> b) & 1) << 4);
}

/// Nibble i in 0 .. 31 of Q4_0, IQ4_NL and MXFP4.
inline int nibble_of(const uint8_t* q, int64_t i) { return i < 16 ? q[i] & 15 : q[i - 16] >> 4; }

}  // namespace cadre::kernels
