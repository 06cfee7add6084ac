#pragma once

/// Pictures, drawn by the gnuplot program: the file's ending chooses SVG or PNG. The picture
/// appears whole or not at all. All of these throw UsageError for another ending or for nothing to
/// draw, IoError when gnuplot is not installed, fails, or the file cannot be written. About 0.1 s
/// each.

#include <filesystem>
#include <string>
#include <vector>

#include "cadre/base/heat_map.h"

namespace cadre {

enum class Scale { kLinear, kLogarithmic };

struct Series {
  std::string name;
  std::vector<double> x;
  std::vector<double> y;  ///< as many as x; a NaN breaks the line
};

struct LineChart {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Series> series;
  Scale x_scale = Scale::kLinear;
  Scale y_scale = Scale::kLinear;  ///< points at or below 0 are left out on a logarithmic axis
};

void write_plot(const LineChart& chart, const std::filesystem::path& path);
void write_plot(const HeatMap& map, const std::filesystem::path& path);

}  // namespace cadre
