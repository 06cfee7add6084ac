#pragma once

/// The Golomb-Rice code of a block of a ternary vector: one byte with the parameter, the survivors'
/// signs (1 = minus), then the gaps between survivors, each as its upper part in unary and `b` low
/// bits. Where more than half of the entries survive the gaps are those of the zeros. With b = 0
/// the gaps are the mask itself, so that a block never takes more than two bits an entry and a
/// byte.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace cadre::reshape {

/// Entries of a block: masks of 1024 words stay in the first cache.
inline constexpr int64_t kTernaryBlock = int64_t{1} << 16;
inline constexpr int64_t kTernaryWords = kTernaryBlock / 64;

/// The bytes of a block of `size` <= kTernaryBlock entries, with the parameter that makes them
/// fewest. Bits of the masks beyond `size` must be 0.
std::vector<std::byte> encode_ternary(const uint64_t* plus, const uint64_t* minus, int64_t size);

/// Masks of words_of(size) words from bytes that hold `kept` survivors; kept and size from 0 to
/// kTernaryBlock. Throws FormatError that begins with `where` for bytes that are no such block.
void decode_ternary(std::span<const std::byte> bytes, int64_t kept, int64_t size, uint64_t* plus,
                    uint64_t* minus, const std::string& where);

}  // namespace cadre::reshape
