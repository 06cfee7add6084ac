#pragma once

/// The loops over stored numbers that every streaming operation passes through, compiled for each
/// vector width and chosen when the program runs. No product is fused with a sum: the same bits on
/// every CPU.

#include <cstddef>
#include <cstdint>

namespace cadre::reshape {

void bf16_to_floats(const std::byte* in, size_t count, float* out);
/// To nearest, ties to even. A NaN becomes an infinity or stays one.
void floats_to_bf16(const float* in, size_t count, std::byte* out);

/// The largest of (number & mask): with the sign masked out, at least infinity's pattern when a
/// number is not finite.
uint16_t largest_bits(const std::byte* in, size_t count, uint16_t mask);
uint32_t largest_bits(const std::byte* in, size_t count, uint32_t mask);

/// out[i] = (sum of weights[k] * in[k][i] in the order of k) / divisor, in float64, rounded once.
void mix_floats(const float* const* in, const double* weights, size_t terms, double divisor,
                size_t count, float* out);

}  // namespace cadre::reshape
