#pragma once

/// Stored numbers <-> float32, for the floating-point types.

#include <cstddef>
#include <cstdint>
#include <span>

#include "cadre/formats/safetensors.h"

namespace cadre::reshape {

bool is_floating(DType type);

/// Decodes as many values as `values` has. F64 is rounded. Throws Error for another type.
void decode(DType type, std::span<const std::byte> bytes, std::span<float> values);
/// Rounds to nearest, ties to even.
void encode(DType type, std::span<const float> values, std::span<std::byte> bytes);

bool all_finite(std::span<const float> values);
/// The same of stored values; true for types that are no floating-point ones.
bool all_finite(DType type, std::span<const std::byte> bytes);

/// `values` stand in memory already: a float32 view that is aligned, else empty.
std::span<const float> as_floats(DType type, std::span<const std::byte> bytes);

}  // namespace cadre::reshape
