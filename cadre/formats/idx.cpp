#include "cadre/formats/idx.h"

#include "cadre/base/error.h"

namespace cadre {
namespace {

constexpr uint8_t kUnsignedByte = 0x08;
constexpr size_t kMostDimensions = 3;

uint8_t byte_at(std::string_view bytes, size_t i) { return static_cast<uint8_t>(bytes[i]); }

}  // namespace

IdxBytes parse_idx(std::string_view bytes, const std::string& where) {
  constexpr size_t kMagic = 4, kSize = 4;
  if (bytes.size() < kMagic || byte_at(bytes, 0) != 0 || byte_at(bytes, 1) != 0) {
    throw FormatError("{}: not an IDX file", where);
  }
  if (byte_at(bytes, 2) != kUnsignedByte) {
    throw FormatError("{}: IDX values of type {:#04x}; only unsigned bytes (0x08) are read", where,
                      byte_at(bytes, 2));
  }
  const size_t dimensions = byte_at(bytes, 3);
  if (dimensions < 1 || dimensions > kMostDimensions) {
    throw FormatError("{}: {} dimensions, must be 1 to {}", where, dimensions, kMostDimensions);
  }
  if (bytes.size() < kMagic + kSize * dimensions) throw FormatError("{}: truncated", where);
  IdxBytes idx;
  size_t count = 1;
  const size_t body = kMagic + kSize * dimensions;
  for (size_t d = 0; d < dimensions; ++d) {
    uint32_t size = 0;
    for (size_t i = 0; i < kSize; ++i) size = size << 8 | byte_at(bytes, kMagic + kSize * d + i);
    idx.sizes.push_back(size);
    // Three sizes of 32 bits overflow 64; none of an honest file goes beyond its bytes.
    if (size != 0 && count > bytes.size() / size) throw FormatError("{}: truncated", where);
    count *= size;
  }
  if (bytes.size() - body != count) {
    throw FormatError("{}: {} bytes of values, its sizes say {}", where, bytes.size() - body,
                      count);
  }
  idx.values.assign(bytes.begin() + static_cast<int64_t>(body), bytes.end());
  return idx;
}

}  // namespace cadre
