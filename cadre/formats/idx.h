#pragma once

/// The IDX format of MNIST and Fashion-MNIST: two zero bytes, a type, the number of dimensions,
/// big-endian sizes, values in row-major order.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cadre {

struct IdxBytes {
  std::vector<int64_t> sizes;
  std::vector<uint8_t> values;
};

/// Unsigned bytes only (type 0x08), one to three dimensions. Throws FormatError naming `where`.
IdxBytes parse_idx(std::string_view bytes, const std::string& where);

}  // namespace cadre
