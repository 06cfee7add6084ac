#include "cadre/reshape/value_loops.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/reshape/value_loops.cpp"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// Plain loops: the compiler makes vectors of them, of each target's width.
HWY_BEFORE_NAMESPACE();
namespace cadre::reshape::HWY_NAMESPACE {

constexpr size_t kBlock = 1024;  // sums of a block stay in the first-level cache

void bf16_to_floats(const std::byte* in, size_t count, float* out) {
  for (size_t i = 0; i < count; ++i) {
    uint16_t stored;
    std::memcpy(&stored, in + i * sizeof(stored), sizeof(stored));
    out[i] = std::bit_cast<float>(uint32_t{stored} << 16);
  }
}

void floats_to_bf16(const float* in, size_t count, std::byte* out) {
  for (size_t i = 0; i < count; ++i) {
    const auto bits = std::bit_cast<uint32_t>(in[i]);
    const auto rounded = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
    std::memcpy(out + i * sizeof(rounded), &rounded, sizeof(rounded));
  }
}

template <typename Bits>
Bits largest_of(const std::byte* in, size_t count, Bits mask) {
  Bits largest = 0;
  for (size_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, in + i * sizeof(Bits), sizeof(Bits));
    const Bits magnitude = bits & mask;
    largest = largest > magnitude ? largest : magnitude;
  }
  return largest;
}
uint16_t largest_16(const std::byte* in, size_t count, uint16_t mask) {
  return largest_of(in, count, mask);
}
uint32_t largest_32(const std::byte* in, size_t count, uint32_t mask) {
  return largest_of(in, count, mask);
}

void mix_floats(const float* const* in, const double* weights, size_t terms, double divisor,
                size_t count, float* out) {
  // Dividing by a power of two is multiplying by its reciprocal, bit for bit, and many times as
  // fast.
  int exponent = 0;
  const bool exact = std::frexp(divisor, &exponent) == 0.5;
  const double reciprocal = 1 / divisor;
  double sums[kBlock];
  for (size_t first = 0; first < count; first += kBlock) {
    const size_t size = std::min(kBlock, count - first);
    std::fill_n(sums, size, -0.0);  // what changes no sum
    for (size_t k = 0; k < terms; ++k) {
      const float* x = in[k] + first;
      const double weight = weights[k];
      for (size_t i = 0; i < size; ++i) sums[i] += weight * static_cast<double>(x[i]);
    }
    float* y = out + first;
    if (exact)
      for (size_t i = 0; i < size; ++i) y[i] = static_cast<float>(sums[i] * reciprocal);
    else
      for (size_t i = 0; i < size; ++i) y[i] = static_cast<float>(sums[i] / divisor);
  }
}

}  // namespace cadre::reshape::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::reshape {

HWY_EXPORT(bf16_to_floats);
HWY_EXPORT(floats_to_bf16);
HWY_EXPORT(largest_16);
HWY_EXPORT(largest_32);
HWY_EXPORT(mix_floats);

void bf16_to_floats(const std::byte* in, size_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(bf16_to_floats)(in, count, out);
}
void floats_to_bf16(const float* in, size_t count, std::byte* out) {
  HWY_DYNAMIC_DISPATCH(floats_to_bf16)(in, count, out);
}
uint16_t largest_bits(const std::byte* in, size_t count, uint16_t mask) {
  return HWY_DYNAMIC_DISPATCH(largest_16)(in, count, mask);
}
uint32_t largest_bits(const std::byte* in, size_t count, uint32_t mask) {
  return HWY_DYNAMIC_DISPATCH(largest_32)(in, count, mask);
}
void mix_floats(const float* const* in, const double* weights, size_t terms, double divisor,
                size_t count, float* out) {
  HWY_DYNAMIC_DISPATCH(mix_floats)(in, weights, terms, divisor, count, out);
}

}  // namespace cadre::reshape
#endif
