#include "cadre/formats/csv.h"

#include <charconv>

#include "cadre/base/error.h"
#include "cadre/formats/json.h"

namespace cadre {
namespace {

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

float number(std::string_view word, const std::string& where, int64_t line) {
  float value = 0;
  const auto [end, failed] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (failed != std::errc() || end != word.data() + word.size()) {
    throw FormatError("{} line {}: {} is not a number", where, line,
                      quote(std::string(word.substr(0, 40))));
  }
  return value;
}

}  // namespace

NumberTable parse_numbers(std::string_view text, const std::string& where) {
  NumberTable table;
  int64_t line = 0;
  while (!text.empty()) {
    ++line;
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view row = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (row.empty()) continue;
    int64_t columns = 0;
    for (bool more = true; more; ++columns) {
      const size_t comma = row.find(',');
      more = comma != std::string_view::npos;
      table.values.push_back(number(trimmed(row.substr(0, comma)), where, line));
      if (more) row.remove_prefix(comma + 1);
    }
    if (table.rows == 0) table.columns = columns;
    if (columns != table.columns) {
      throw FormatError("{} line {}: {} numbers, the first line has {}", where, line, columns,
                        table.columns);
    }
    ++table.rows;
  }
  if (table.rows == 0) throw FormatError("{}: no rows", where);
  return table;
}

}  // namespace cadre
