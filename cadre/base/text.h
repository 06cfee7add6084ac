#pragma once

/// Text for people's eyes: file names, labels and messages come from anywhere and must not break a
/// terminal, a table or a picture.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace cadre {

struct CodePoint {
  char32_t value;
  size_t bytes;  ///< at least 1
};

/// The code point at the front of `text` (not empty); U+FFFD and 1 byte where it is not valid
/// UTF-8.
CodePoint first_code_point(std::string_view text);

/// `text` as valid UTF-8 on one line: a run of control characters becomes one space (none at either
/// end), invalid bytes become U+FFFD.
std::string one_line(std::string_view text);

/// Terminal columns that valid UTF-8 takes: 0 for combining marks, 2 for East Asian wide and emoji.
size_t display_width(std::string_view text);

/// The longest beginning of `text` that fits in `columns`.
std::string_view fit_width(std::string_view text, size_t columns);

/// The candidate with the smallest edit distance to `word`; empty when all are further than half
/// its length.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);

/// ": did you mean X?", or nothing when no candidate is near.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

}  // namespace cadre
