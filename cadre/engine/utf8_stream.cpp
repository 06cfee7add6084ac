#include "cadre/engine/utf8_stream.h"

#include <algorithm>
#include <cstdint>

#include "cadre/base/text.h"
#include "cadre/formats/utf8.h"

namespace cadre::engine {
namespace {

/// Bytes at the end of `text` that begin a character and do not finish it.
size_t unfinished_bytes(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const auto byte = static_cast<uint8_t>(text[text.size() - back]);
    if ((byte & 0xC0) == 0x80) continue;
    const size_t needed = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1;
    return needed > back ? back : 0;
  }
  return 0;
}

}  // namespace

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  return take(pending_.size() - unfinished_bytes(pending_));
}

std::string Utf8Stream::finish() { return take(pending_.size()); }

std::string Utf8Stream::take(size_t count) {
  std::string text;
  std::string_view rest = std::string_view(pending_).substr(0, count);
  while (!rest.empty()) {
    const CodePoint point = first_code_point(rest);
    text += point.value == 0xFFFD ? utf8_of(0xFFFD) : std::string(rest.substr(0, point.bytes));
    rest.remove_prefix(point.bytes);
  }
  pending_.erase(0, count);
  return text;
}

}  // namespace cadre::engine
