#include "cadre/base/heat_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "cadre/base/error.h"
#include "cadre/base/text.h"

namespace cadre {
namespace {

constexpr std::string_view kPlainShades = " .:-=+*#%@";
// From the 256-colour cube, dark blue over green to yellow: lightness grows steadily, so that it
// reads the same without colour vision.
constexpr std::array<int, 12> kColors = {17, 18, 54, 60, 24, 30, 36, 35, 71, 113, 149, 226};

size_t index_of(double shade, size_t count) {
  return std::min(count - 1, static_cast<size_t>(shade * static_cast<double>(count)));
}

std::string cell(double value, const Shades& shades, CellStyle style, size_t width) {
  if (style == CellStyle::kPlain) {
    const char c =
        std::isfinite(value) ? kPlainShades[index_of(shades(value), kPlainShades.size())] : '?';
    return std::string(width, c);
  }
  if (!std::isfinite(value)) return std::string(width, '?');
  return fmt::format("\x1b[48;5;{}m{:{}}\x1b[0m", kColors[index_of(shades(value), kColors.size())],
                     "", width);
}

std::string padded(std::string_view label, size_t columns) {
  const std::string_view fitting = fit_width(label, columns);
  return std::string(fitting) + std::string(columns - display_width(fitting), ' ');
}

// Column labels above their cells, as many as fit with a space between.
std::string header(const HeatMap& map, size_t first, size_t last, size_t cell_width) {
  std::string line;
  size_t used = 0;
  for (size_t column = first; column < last; ++column) {
    const size_t at = (column - first) * cell_width;
    if (at < used + (used > 0 ? 1 : 0)) continue;
    const std::string label = one_line(map.column_labels[column]);
    const size_t room = (last - first) * cell_width - at;
    if (display_width(label) > std::max(room, cell_width)) continue;
    line += std::string(at - used, ' ') + label;
    used = at + display_width(label);
  }
  return line;
}

}  // namespace

void check(const HeatMap& map) {
  const size_t rows = map.row_labels.size();
  const size_t columns = map.column_labels.size();
  if (rows == 0 || columns == 0) throw UsageError("heat map '{}' is empty", map.title);
  if (map.values.size() != rows * columns) {
    throw UsageError("heat map '{}' has {} values for {} rows and {} columns", map.title,
                     map.values.size(), rows, columns);
  }
}

Shades::Shades(const HeatMap& map) : low(INFINITY), high(-INFINITY) {
  for (const double value : map.values) {
    if (!std::isfinite(value)) continue;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  if (low > high) low = high = 0;
  low = map.low.value_or(low);
  high = map.high.value_or(high);
}

double Shades::operator()(double value) const {
  return high > low ? std::clamp((value - low) / (high - low), 0.0, 1.0) : 0.0;
}

std::string render(const HeatMap& map, CellStyle style, int width) {
  check(map);
  const size_t columns = map.column_labels.size();
  const auto total_width = static_cast<size_t>(std::max(width, 20));
  size_t label_width = 0;
  for (const auto& label : map.row_labels) {
    label_width = std::max(label_width, display_width(one_line(label)));
  }
  label_width = std::min(label_width, total_width / 3);
  const size_t room = total_width - label_width - 1;
  const size_t cell_width = columns * 2 <= room ? 2 : 1;
  const size_t band = room / cell_width;
  const Shades shades(map);

  std::string text = map.title.empty() ? "" : one_line(map.title) + "\n";
  for (size_t first = 0; first < columns; first += band) {
    const size_t last = std::min(columns, first + band);
    text += std::string(label_width + 1, ' ') + header(map, first, last, cell_width) + "\n";
    for (size_t row = 0; row < map.row_labels.size(); ++row) {
      text += padded(one_line(map.row_labels[row]), label_width) + " ";
      for (size_t column = first; column < last; ++column) {
        text += cell(map.values[row * columns + column], shades, style, cell_width);
      }
      text += "\n";
    }
  }
  return text;
}

}  // namespace cadre
