#pragma once

/// A self-contained HTML page: style and pictures inside, no script, nothing fetched.

#include <string>
#include <string_view>
#include <vector>

#include "cadre/base/heat_map.h"
#include "cadre/base/plot.h"

namespace cadre {

/// `text` with & < > " escaped.
std::string escape_html(std::string_view text);

/// A whole page around `body` (HTML).
std::string html_page(std::string_view title, std::string_view body);

/// Cells are text and are escaped.
std::string html_table(const std::vector<std::string>& headers,
                       const std::vector<std::vector<std::string>>& rows);

/// The picture as an <svg> element for use inside a page.
std::string inline_svg(const LineChart& chart);
std::string inline_svg(const HeatMap& map);

}  // namespace cadre
