#pragma once

/// UTF-8 (RFC 3629), as far as reading text needs it.

#include <cstdint>
#include <string>
#include <string_view>

namespace cadre {

/// Bytes of the first character of a text: 1 to 4, at most what is there, 0 for an empty text. A
/// byte that begins no valid character counts as one of its own.
size_t utf8_length(std::string_view text);

/// A code point as UTF-8; "" for surrogates and numbers beyond U+10FFFF.
std::string utf8_of(uint32_t code_point);

/// Offset of the first byte that is not valid UTF-8, or -1.
int64_t find_invalid_utf8(std::string_view text);

/// The largest cut <= `offset` that splits no character of a valid text.
size_t utf8_boundary(std::string_view text, size_t offset);

}  // namespace cadre
