#pragma once

/// The bytes in front of a token file's ids, as they lie in the file.

#include <array>
#include <cstdint>

namespace cadre {

inline constexpr std::array<char, 8> kTokenFileMagic = {'C', 'A', 'D', 'R', 'E', 'T', 'O', 'K'};
inline constexpr uint32_t kTokenFileVersion = 1;

struct TokenFileHeader {
  std::array<char, 8> magic = kTokenFileMagic;
  uint32_t version = kTokenFileVersion;
  uint32_t id_bytes = 2;
  uint64_t count = 0;
  uint64_t vocabulary = 0;
  std::array<uint8_t, 16> tokenizer_hash = {};
};
static_assert(sizeof(TokenFileHeader) == 48);

}  // namespace cadre
