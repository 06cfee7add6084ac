#include "tools/common/html.h"

#include <fmt/format.h>

#include "cadre/formats/file.h"
#include "tools/common/temporary_folder.h"

namespace cadre {
namespace {

constexpr const char* kStyle = R"(
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
svg { max-width: 100%; height: auto; }
pre { background: #f6f6f4; padding: .8rem 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
pre b { color: #036; }
)";

template <typename Picture>
std::string svg_of(const Picture& picture) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "picture.svg";
  write_plot(picture, path);
  const std::string svg = read_file(path);
  // The XML prologue and the document type have no place inside a page.
  const size_t begin = svg.find("<svg");
  return begin == std::string::npos ? svg : svg.substr(begin);
}

std::string row_of(const std::vector<std::string>& cells, std::string_view tag) {
  std::string row = "<tr>";
  for (const auto& cell : cells) row += fmt::format("<{0}>{1}</{0}>", tag, escape_html(cell));
  return row + "</tr>\n";
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string html_page(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" "
      "content=\"width=device-width\">\n<title>{0}</title>\n<style>{1}</style>\n"
      "</head>\n<body>\n<h1>{0}</h1>\n{2}</body>\n</html>\n",
      escape_html(title), kStyle, body);
}

std::string html_table(const std::vector<std::string>& headers,
                       const std::vector<std::vector<std::string>>& rows) {
  std::string table = "<table>\n" + row_of(headers, "th");
  for (const auto& row : rows) table += row_of(row, "td");
  return table + "</table>\n";
}

std::string inline_svg(const LineChart& chart) { return svg_of(chart); }

std::string inline_svg(const HeatMap& map) { return svg_of(map); }

}  // namespace cadre
