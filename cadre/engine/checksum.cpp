#include "cadre/engine/checksum.h"

#include <array>
#include <cstring>

namespace cadre::engine {
namespace {

constexpr std::array<uint32_t, 256> kTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ (value & 1 ? 0x82F63B78U : 0);
    table[i] = value;
  }
  return table;
}();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t crc32c_sse(std::span<const std::byte> bytes,
                                                      uint32_t before) {
  uint64_t value = ~before;
  size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    uint64_t word;
    std::memcpy(&word, bytes.data() + i, 8);
    value = __builtin_ia32_crc32di(value, word);
  }
  auto rest = static_cast<uint32_t>(value);
  for (; i < bytes.size(); ++i)
    rest = __builtin_ia32_crc32qi(rest, static_cast<unsigned char>(bytes[i]));
  return ~rest;
}
#endif

}  // namespace

uint32_t crc32c_reference(std::span<const std::byte> bytes, uint32_t before) {
  uint32_t value = ~before;
  for (const std::byte byte : bytes)
    value = (value >> 8) ^ kTable[(value ^ static_cast<uint32_t>(byte)) & 0xFF];
  return ~value;
}

uint32_t crc32c(std::span<const std::byte> bytes, uint32_t before) {
#if defined(__x86_64__)
  static const bool has_instruction = __builtin_cpu_supports("sse4.2") != 0;
  if (has_instruction) return crc32c_sse(bytes, before);
#endif
  return crc32c_reference(bytes, before);
}

}  // namespace cadre::engine
