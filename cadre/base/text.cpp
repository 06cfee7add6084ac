#include "cadre/base/text.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>

namespace cadre {
namespace {

constexpr CodePoint kInvalid = {0xFFFD, 1};

struct Range {
  char32_t first;
  char32_t last;
};

template <size_t N>
bool contains(const std::array<Range, N>& ranges, char32_t c) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [c](Range range) { return range.first <= c && c <= range.last; });
}

size_t width_of(char32_t c) {
  static constexpr std::array<Range, 5> kZero = {
      {{0x300, 0x36F}, {0x200B, 0x200F}, {0x20D0, 0x20FF}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}}};
  static constexpr std::array<Range, 9> kWide = {{{0x1100, 0x115F},
                                                  {0x2E80, 0xA4CF},
                                                  {0xAC00, 0xD7A3},
                                                  {0xF900, 0xFAFF},
                                                  {0xFE30, 0xFE6F},
                                                  {0xFF00, 0xFF60},
                                                  {0xFFE0, 0xFFE6},
                                                  {0x1F300, 0x1FAFF},
                                                  {0x20000, 0x3FFFD}}};
  if (c < 0x300) return 1;
  if (contains(kZero, c)) return 0;
  return contains(kWide, c) ? 2 : 1;
}

bool is_control(char32_t c) { return c < 0x20 || (0x7F <= c && c < 0xA0); }

/// Levenshtein distance: insertions, deletions and substitutions cost 1.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row.back();
}

}  // namespace

CodePoint first_code_point(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  size_t length = 0;
  if (lead >= 0xC2 && lead < 0xE0) length = 2;
  if (lead >= 0xE0 && lead < 0xF0) length = 3;
  if (lead >= 0xF0 && lead < 0xF5) length = 4;
  if (length == 0 || text.size() < length) return kInvalid;
  char32_t value = lead & (0x7FU >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return kInvalid;
    value = (value << 6) | (byte(i) & 0x3FU);
  }
  const bool overlong = (length == 3 && value < 0x800) || (length == 4 && value < 0x10000);
  const bool surrogate = value >= 0xD800 && value < 0xE000;
  if (overlong || surrogate || value > 0x10FFFF) return kInvalid;
  return {value, length};
}

std::string one_line(std::string_view text) {
  std::string line;
  bool gap = false;
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    const std::string_view bytes = text.substr(0, point.bytes);
    text.remove_prefix(point.bytes);
    if (is_control(point.value)) {
      gap = true;
      continue;
    }
    if (gap && !line.empty() && line.back() != ' ' && bytes != " ") line += ' ';
    gap = false;
    // U+FFFD stands for itself, too: then its bytes are three.
    line += point.value == 0xFFFD ? std::string_view("\xEF\xBF\xBD") : bytes;
  }
  return line;
}

size_t display_width(std::string_view text) {
  size_t columns = 0;
  while (!text.empty()) {
    const CodePoint point = first_code_point(text);
    columns += width_of(point.value);
    text.remove_prefix(point.bytes);
  }
  return columns;
}

std::string_view fit_width(std::string_view text, size_t columns) {
  size_t used = 0;
  size_t end = 0;
  while (end < text.size()) {
    const CodePoint point = first_code_point(text.substr(end));
    used += width_of(point.value);
    if (used > columns) break;
    end += point.bytes;
  }
  return text.substr(0, end);
}

std::string nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t smallest = std::max<size_t>(1, word.size() / 2) + 1;
  for (const auto& candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance >= smallest) continue;
    smallest = distance;
    best = candidate;
  }
  return best;
}

std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string best = nearest(word, candidates);
  return best.empty() ? "" : ": did you mean " + best + "?";
}

}  // namespace cadre
