#include "cadre/formats/utf8.h"

#include <cstring>

#include "cadre/base/text.h"

namespace cadre {

namespace {

bool is_continuation(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

/// A real U+FFFD takes three bytes.
bool is_invalid(CodePoint point) { return point.value == 0xFFFD && point.bytes == 1; }

}  // namespace

size_t utf8_length(std::string_view text) {
  return text.empty() ? 0 : first_code_point(text).bytes;
}

std::string utf8_of(uint32_t code) {
  const auto tail = [code](int shift) {
    return static_cast<char>(0x80 | ((code >> shift) & 0x3F));
  };
  if (code < 0x80) return {static_cast<char>(code)};
  if (code < 0x800) return {static_cast<char>(0xC0 | code >> 6), tail(0)};
  if (code >= 0xD800 && code < 0xE000) return {};
  if (code < 0x10000) return {static_cast<char>(0xE0 | code >> 12), tail(6), tail(0)};
  if (code < 0x110000) return {static_cast<char>(0xF0 | code >> 18), tail(12), tail(6), tail(0)};
  return {};
}

int64_t find_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    uint64_t eight;
    if (at + 8 <= text.size()) {
      std::memcpy(&eight, text.data() + at, 8);
      if ((eight & 0x8080808080808080u) == 0) {
        at += 8;
        continue;
      }
    }
    const CodePoint point = first_code_point(text.substr(at));
    if (is_invalid(point)) return static_cast<int64_t>(at);
    at += point.bytes;
  }
  return -1;
}

size_t utf8_boundary(std::string_view text, size_t offset) {
  if (offset >= text.size()) return text.size();
  for (int back = 0; back < 3 && offset > 0 && is_continuation(text[offset]); ++back) --offset;
  return offset;
}

}  // namespace cadre
