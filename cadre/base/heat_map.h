#pragma once

/// A matrix shown by shade: which expert works for which domain. In a terminal here, as a picture
/// through write_plot() (cadre/base/plot.h).

#include <optional>
#include <string>
#include <vector>

namespace cadre {

struct HeatMap {
  std::string title;
  std::vector<std::string> row_labels;     ///< R
  std::vector<std::string> column_labels;  ///< C
  std::vector<double> values;              ///< R x C, row-major; NaN: no value
  std::optional<double> low;               ///< shown darkest; default: the smallest value
  std::optional<double> high;              ///< shown brightest; default: the largest value
  std::string x_label;                     ///< what the columns are
  std::string y_label;                     ///< what the rows are
};

enum class CellStyle {
  kColor,  ///< coloured cells (256-colour terminals)
  kPlain   ///< characters from ' ' to '@', '?' for no value
};

/// Throws UsageError unless there are R x C values, R and C at least 1.
void check(const HeatMap& map);

/// Where `value` lies between low and high, in [0, 1]; 0 when they are equal.
struct Shades {
  explicit Shades(const HeatMap& map);
  double operator()(double value) const;
  double low;
  double high;
};

/// The map as lines of at most `width` columns; what does not fit beside goes into bands below.
std::string render(const HeatMap& map, CellStyle style, int width = 80);

}  // namespace cadre
