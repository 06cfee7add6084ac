#include "cadre/formats/tokenizer_text.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <vector>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/formats/utf8.h"

namespace cadre::bpe {
namespace {

constexpr auto kComposition =
    static_cast<utf8proc_option_t>(unsigned{UTF8PROC_STABLE} | unsigned{UTF8PROC_COMPOSE});

/// Blocks in which every code point is a starter that NFC leaves alone whatever precedes it.
bool untouched_by_nfc(char32_t c) {
  return c < 0x300 || (c >= 0x400 && c <= 0x482) || (c >= 0x2010 && c <= 0x2027) ||
         (c >= 0x3041 && c <= 0x3096) || (c >= 0x30a0 && c <= 0x30ff) ||
         (c >= 0x3400 && c <= 0x9fff) || (c >= 0xac00 && c <= 0xd7a3) ||
         (c >= 0x1f300 && c <= 0x1faff);
}

std::vector<utf8proc_int32_t> decompose(std::string_view valid) {
  std::vector<utf8proc_int32_t> points;
  points.reserve(valid.size());
  int boundary = 0;
  while (!valid.empty()) {
    const CodePoint point = first_code_point(valid);
    valid.remove_prefix(point.bytes);
    std::array<utf8proc_int32_t, 32> parts;
    const auto count = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(point.value),
                                               parts.data(), parts.size(), kComposition, &boundary);
    if (count < 0) throw Error("cannot decompose U+{:04X}", static_cast<uint32_t>(point.value));
    points.insert(points.end(), parts.begin(), parts.begin() + count);
  }
  return points;
}

/// Sorts each run of combining marks by class. utf8proc's own insertion sort is quadratic in the
/// run.
void order_marks(std::vector<utf8proc_int32_t>& points) {
  const auto mark_class = [](utf8proc_int32_t point) {
    return utf8proc_get_property(point)->combining_class;
  };
  for (auto run = points.begin(); run != points.end();) {
    if (mark_class(*run) == 0) {
      ++run;
      continue;
    }
    const auto end =
        std::find_if(run, points.end(), [&](auto point) { return mark_class(point) == 0; });
    std::stable_sort(run, end, [&](auto a, auto b) { return mark_class(a) < mark_class(b); });
    run = end;
  }
}

struct Alphabet {
  std::array<std::string, 256> letters;
  std::array<uint8_t, 256> in_order;
  std::array<int16_t, 512> byte_of;

  Alphabet() {
    byte_of.fill(-1);
    const auto printable = [](int byte) {
      return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    };
    int next_code_point = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const int code_point = printable(byte) ? byte : next_code_point++;
      letters[byte] = utf8_of(static_cast<uint32_t>(code_point));
      byte_of[code_point] = static_cast<int16_t>(byte);
    }
    auto* out = in_order.data();
    for (const int16_t byte : byte_of)
      if (byte >= 0) *out++ = static_cast<uint8_t>(byte);
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

size_t valid_utf8_prefix(std::string_view text) {
  const int64_t invalid = find_invalid_utf8(text);
  return invalid < 0 ? text.size() : static_cast<size_t>(invalid);
}

char32_t last_code_point(std::string_view text) {
  size_t begin = text.size() - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xc0) == 0x80) --begin;
  return first_code_point(text.substr(begin)).value;
}

bool surely_nfc(std::string_view valid) {
  while (!valid.empty()) {
    const CodePoint point = first_code_point(valid);
    if (!untouched_by_nfc(point.value)) return false;
    valid.remove_prefix(point.bytes);
  }
  return true;
}

std::string nfc(std::string_view valid) {
  auto points = decompose(valid);
  order_marks(points);
  const auto count = utf8proc_normalize_utf32(
      points.data(), static_cast<utf8proc_ssize_t>(points.size()), kComposition);
  if (count < 0) throw Error("cannot normalise text: {}", utf8proc_errmsg(count));
  std::string result;
  result.reserve(valid.size());
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    result += utf8_of(static_cast<uint32_t>(points[i]));
  }
  return result;
}

std::string_view letter_of(uint8_t byte) { return alphabet().letters[byte]; }

const uint8_t* bytes_in_letter_order() { return alphabet().in_order.data(); }

std::string to_letters(std::string_view bytes) {
  std::string letters;
  for (const char byte : bytes) letters += letter_of(static_cast<uint8_t>(byte));
  return letters;
}

std::string from_letters(std::string_view letters) {
  std::string bytes;
  for (std::string_view rest = letters; !rest.empty();) {
    const CodePoint point = first_code_point(rest);
    if (point.value >= 512 || alphabet().byte_of[point.value] < 0) return std::string(letters);
    bytes += static_cast<char>(alphabet().byte_of[point.value]);
    rest.remove_prefix(point.bytes);
  }
  return bytes;
}

}  // namespace cadre::bpe
