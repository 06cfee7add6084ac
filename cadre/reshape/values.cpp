#include "cadre/reshape/values.h"

#include <cstring>

#include "cadre/base/error.h"
#include "cadre/kernels/blocks.h"
#include "cadre/reshape/value_loops.h"

namespace cadre::reshape {
namespace {

template <typename Stored, typename Convert>
void decode_each(std::span<const std::byte> bytes, std::span<float> values, Convert convert) {
  const std::byte* in = bytes.data();
  for (size_t i = 0; i < values.size(); ++i) {
    Stored stored;
    std::memcpy(&stored, in + i * sizeof(Stored), sizeof(Stored));
    values[i] = convert(stored);
  }
}

template <typename Stored, typename Convert>
void encode_each(std::span<const float> values, std::span<std::byte> bytes, Convert convert) {
  std::byte* out = bytes.data();
  for (size_t i = 0; i < values.size(); ++i) {
    const Stored stored = convert(values[i]);
    std::memcpy(out + i * sizeof(Stored), &stored, sizeof(Stored));
  }
}

/// Whether every stored number without its sign is smaller than infinity's pattern.
template <typename Bits>
bool below(std::span<const std::byte> bytes, Bits mask, Bits infinity) {
  return largest_bits(bytes.data(), bytes.size() / sizeof(Bits), mask) < infinity;
}

bool below_in_float64(std::span<const std::byte> bytes) {
  constexpr uint64_t kMask = 0x7fffffffffffffffu, kInfinity = 0x7ff0000000000000u;
  bool all = true;
  for (size_t at = 0; at + sizeof(uint64_t) <= bytes.size(); at += sizeof(uint64_t)) {
    uint64_t bits;
    std::memcpy(&bits, bytes.data() + at, sizeof(bits));
    all = all && (bits & kMask) < kInfinity;
  }
  return all;
}

}  // namespace

bool is_floating(DType type) {
  return type == DType::kF64 || type == DType::kF32 || type == DType::kF16 || type == DType::kBF16;
}

void decode(DType type, std::span<const std::byte> bytes, std::span<float> values) {
  switch (type) {
    case DType::kF32:
      std::memcpy(values.data(), bytes.data(), values.size_bytes());
      return;
    case DType::kF16:
      return decode_each<uint16_t>(bytes, values, kernels::half_to_float);
    case DType::kBF16:
      return bf16_to_floats(bytes.data(), values.size(), values.data());
    case DType::kF64:
      return decode_each<double>(bytes, values, [](double v) { return static_cast<float>(v); });
    default:
      throw Error("{} holds no floating-point values", name_of(type));
  }
}

void encode(DType type, std::span<const float> values, std::span<std::byte> bytes) {
  switch (type) {
    case DType::kF32:
      std::memcpy(bytes.data(), values.data(), values.size_bytes());
      return;
    case DType::kF16:
      return encode_each<uint16_t>(values, bytes, kernels::float_to_half);
    case DType::kBF16:
      return floats_to_bf16(values.data(), values.size(), bytes.data());
    case DType::kF64:
      return encode_each<double>(values, bytes, [](float v) { return static_cast<double>(v); });
    default:
      throw Error("{} holds no floating-point values", name_of(type));
  }
}

bool all_finite(DType type, std::span<const std::byte> bytes) {
  switch (type) {
    case DType::kF32:
      return below<uint32_t>(bytes, 0x7fffffffu, 0x7f800000u);
    case DType::kF16:
      return below<uint16_t>(bytes, 0x7fffu, 0x7c00u);
    case DType::kBF16:
      return below<uint16_t>(bytes, 0x7fffu, 0x7f80u);
    case DType::kF64:
      return below_in_float64(bytes);
    default:
      return true;
  }
}

bool all_finite(std::span<const float> values) {
  return all_finite(DType::kF32, std::as_bytes(values));
}

std::span<const float> as_floats(DType type, std::span<const std::byte> bytes) {
  const bool aligned = reinterpret_cast<uintptr_t>(bytes.data()) % alignof(float) == 0;
  if (type != DType::kF32 || !aligned) return {};
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

}  // namespace cadre::reshape
