#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "cadre/base/error.h"
#include "cadre/kernels/block_layouts.h"
#include "cadre/kernels/blocks.h"

namespace cadre::kernels {
namespace {

template <typename Block>
void store(const Block& block, std::byte*& out) {
  std::memcpy(out, &block, sizeof(Block));
  out += sizeof(Block);
}

float largest_magnitude(const float* x, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

/// Nearest integer, ties away from zero, kept in [low, high].
int round_within(float x, int low, int high) {
  return std::clamp(static_cast<int>(std::lround(x)), low, high);
}

uint16_t to_bf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

BlockQ8_0 encode_q8_0(const float* x) {
  BlockQ8_0 block;
  const float d = largest_magnitude(x, 32) / 127.0f;
  const float inverse = d > 0 ? 1.0f / d : 0.0f;
  block.d = float_to_half(d);
  for (int i = 0; i < 32; ++i)
    block.q[i] = static_cast<int8_t>(round_within(x[i] * inverse, -127, 127));
  return block;
}

/// The value of largest magnitude becomes -8, the end of the range that has one step more.
BlockQ4_0 encode_q4_0(const float* x) {
  BlockQ4_0 block;
  const float extreme =
      *std::max_element(x, x + 32, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  const float d = extreme / -8.0f;
  const float inverse = d != 0 ? 1.0f / d : 0.0f;
  block.d = float_to_half(d);
  const auto level = [&](float value) { return round_within(value * inverse, -8, 7) + 8; };
  for (int i = 0; i < 16; ++i) {
    block.q[i] = static_cast<uint8_t>(level(x[i]) | (level(x[i + 16]) << 4));
  }
  return block;
}

/// w = scale q - minimum with q in [0, levels], minimum >= 0.
struct Affine {
  float scale = 0, minimum = 0;
  std::array<uint8_t, 32> q = {};
};

/// Levels for a given scale and minimum; returns the squared error.
double assign_levels(const float* x, int levels, Affine& fit) {
  const float inverse = fit.scale > 0 ? 1.0f / fit.scale : 0.0f;
  double error = 0;
  for (int i = 0; i < 32; ++i) {
    fit.q[i] = static_cast<uint8_t>(round_within((x[i] + fit.minimum) * inverse, 0, levels));
    const double difference = fit.scale * fit.q[i] - fit.minimum - x[i];
    error += difference * difference;
  }
  return error;
}

/// Scale and minimum of least squares for fixed levels; keeps minimum >= 0.
void refit(const float* x, Affine& fit) {
  double q1 = 0, q2 = 0, x1 = 0, xq = 0;
  for (int i = 0; i < 32; ++i) {
    q1 += fit.q[i];
    q2 += double{static_cast<double>(fit.q[i])} * fit.q[i];
    x1 += x[i];
    xq += double{x[i]} * fit.q[i];
  }
  const double determinant = 32 * q2 - q1 * q1;
  if (determinant <= 0) return;
  double scale = (32 * xq - q1 * x1) / determinant;
  double minimum = (q1 * xq - q2 * x1) / determinant;
  if (minimum < 0) {
    minimum = 0;
    scale = q2 > 0 ? xq / q2 : 0;
  }
  if (scale <= 0) return;
  fit.scale = static_cast<float>(scale);
  fit.minimum = static_cast<float>(minimum);
}

/// Tries ranges a little narrower and wider than the values' own, each refitted once by least
/// squares.
Affine fit_affine(const float* x, int levels) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const float minimum = std::max(0.0f, -*low);
  const float range = *high + minimum;
  Affine best{.scale = std::max(range, 0.0f) / static_cast<float>(levels), .minimum = minimum};
  double best_error = assign_levels(x, levels, best);
  if (!(range > 0)) return best;
  for (int trial = -4; trial <= 4; ++trial) {
    Affine fit{.scale = range / (static_cast<float>(levels) + 0.1f * static_cast<float>(trial)),
               .minimum = minimum};
    assign_levels(x, levels, fit);
    refit(x, fit);
    const double error = assign_levels(x, levels, fit);
    if (error < best_error) {
      best_error = error;
      best = fit;
    }
  }
  return best;
}

/// Six-bit scales and minima of eight sub-blocks into twelve bytes: the inverse of scale_min_k4.
void pack_scales_k4(const std::array<ScaleMin, 8>& s, uint8_t* b) {
  for (int j = 0; j < 4; ++j) {
    b[j] = static_cast<uint8_t>(s[j].scale | ((s[j + 4].scale >> 4) << 6));
    b[j + 4] = static_cast<uint8_t>(s[j].minimum | ((s[j + 4].minimum >> 4) << 6));
    b[j + 8] = static_cast<uint8_t>((s[j + 4].scale & 15) | ((s[j + 4].minimum & 15) << 4));
  }
}

BlockQ4_K encode_q4_k(const float* x) {
  std::array<Affine, 8> fits;
  float most_scale = 0, most_minimum = 0;
  for (int j = 0; j < 8; ++j) {
    fits[j] = fit_affine(x + 32 * j, 15);
    most_scale = std::max(most_scale, fits[j].scale);
    most_minimum = std::max(most_minimum, fits[j].minimum);
  }
  BlockQ4_K block;
  block.d = float_to_half(most_scale / 63.0f);
  block.dmin = float_to_half(most_minimum / 63.0f);
  const float d = half_to_float(block.d), dmin = half_to_float(block.dmin);
  std::array<ScaleMin, 8> scales;
  for (int j = 0; j < 8; ++j) {
    scales[j] = {static_cast<uint8_t>(d > 0 ? round_within(fits[j].scale / d, 0, 63) : 0),
                 static_cast<uint8_t>(dmin > 0 ? round_within(fits[j].minimum / dmin, 0, 63) : 0)};
    // The stored scale and minimum are rounded: the levels are chosen for those.
    fits[j].scale = d * scales[j].scale;
    fits[j].minimum = dmin * scales[j].minimum;
    assign_levels(x + 32 * j, 15, fits[j]);
  }
  pack_scales_k4(scales, block.scales);
  for (int g = 0; g < 4; ++g) {
    for (int i = 0; i < 32; ++i) {
      block.q[32 * g + i] = static_cast<uint8_t>(fits[2 * g].q[i] | (fits[2 * g + 1].q[i] << 4));
    }
  }
  return block;
}

/// The scale for which 16 values rounded to [-32, 31] have the least squared error.
float fit_symmetric(const float* x) {
  const float extreme =
      *std::max_element(x, x + 16, [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  if (extreme == 0) return 0;
  float best = 0;
  double best_gain = -1;
  for (int trial = -9; trial <= 9; ++trial) {
    const float inverse = -(32.0f + 0.1f * static_cast<float>(trial)) / extreme;
    double xq = 0, q2 = 0;
    for (int i = 0; i < 16; ++i) {
      const int q = round_within(x[i] * inverse, -32, 31);
      xq += double{x[i]} * q;
      q2 += double{static_cast<double>(q)} * q;
    }
    // With scale xq / q2 the squared error is sum x^2 - xq^2 / q2.
    if (q2 > 0 && xq * xq / q2 > best_gain) {
      best_gain = xq * xq / q2;
      best = static_cast<float>(xq / q2);
    }
  }
  return best;
}

BlockQ6_K encode_q6_k(const float* x) {
  std::array<float, 16> scales;
  for (int j = 0; j < 16; ++j) scales[j] = fit_symmetric(x + 16 * j);
  const float extreme = *std::max_element(
      scales.begin(), scales.end(), [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  BlockQ6_K block = {};
  block.d = float_to_half(extreme / -128.0f);
  const float d = half_to_float(block.d);
  for (int j = 0; j < 16; ++j) {
    block.scales[j] = static_cast<int8_t>(d != 0 ? round_within(scales[j] / d, -128, 127) : 0);
  }
  for (int64_t i = 0; i < kSuperBlock; ++i) {
    const float scale = d * block.scales[i / 16];
    const int q = (scale != 0 ? round_within(x[i] / scale, -32, 31) : 0) + 32;
    const int64_t half = i / 128, l = i % 32, row = (i % 128) / 32;
    block.low[half * 64 + (row % 2) * 32 + l] |=
        static_cast<uint8_t>((q & 15) << (row < 2 ? 0 : 4));
    block.high[half * 32 + l] |= static_cast<uint8_t>((q >> 4) << (2 * row));
  }
  return block;
}

}  // namespace

void quantize(BlockType type, const float* values, int64_t count, std::byte* blocks) {
  const BlockInfo& info = block_info(type);
  row_bytes(type, count);
  for (int64_t i = 0; i < count; i += info.elements) {
    const float* x = values + i;
    switch (type) {
      case BlockType::kF32:
        store(*x, blocks);
        break;
      case BlockType::kF16:
        store(float_to_half(*x), blocks);
        break;
      case BlockType::kBF16:
        store(to_bf16(*x), blocks);
        break;
      case BlockType::kQ8_0:
        store(encode_q8_0(x), blocks);
        break;
      case BlockType::kQ4_0:
        store(encode_q4_0(x), blocks);
        break;
      case BlockType::kQ4_K:
        store(encode_q4_k(x), blocks);
        break;
      case BlockType::kQ6_K:
        store(encode_q6_k(x), blocks);
        break;
      default:
        throw UsageError("{} can be read, not written; choose F16, BF16, Q8_0, Q4_0, Q4_K or Q6_K",
                         info.name);
    }
  }
}

}  // namespace cadre::kernels
