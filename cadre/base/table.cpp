#include "cadre/base/table.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/base/text.h"

namespace cadre {
namespace {

bool begins_like_a_number(const std::string& cell) {
  const size_t sign = cell.find_first_not_of("+-.~<>");
  return sign != std::string::npos && cell[sign] >= '0' && cell[sign] <= '9';
}

std::string without_pipes(const std::string& cell) {
  std::string text;
  for (const char c : cell) {
    if (c == '|') text += '\\';
    text += c;
  }
  return text;
}

}  // namespace

Table::Table(std::vector<std::string> headers) : headers_(std::move(headers)) {
  for (auto& header : headers_) header = one_line(header);
}

Table& Table::add_row(std::vector<std::string> cells) {
  if (cells.size() > headers_.size()) {
    throw UsageError("a row of {} cells does not fit a table of {} columns", cells.size(),
                     headers_.size());
  }
  for (auto& cell : cells) cell = one_line(cell);
  cells.resize(headers_.size());
  rows_.push_back(std::move(cells));
  return *this;
}

bool Table::is_numeric(size_t column) const {
  return std::all_of(rows_.begin(), rows_.end(), [&](const auto& row) {
    return row[column].empty() || begins_like_a_number(row[column]);
  });
}

size_t Table::width(size_t column) const {
  size_t widest = display_width(headers_[column]);
  for (const auto& row : rows_) widest = std::max(widest, display_width(row[column]));
  return widest;
}

std::string Table::str() const {
  std::vector<size_t> widths;
  std::vector<bool> numeric;
  for (size_t column = 0; column < headers_.size(); ++column) {
    widths.push_back(width(column));
    numeric.push_back(column > 0 && is_numeric(column));
  }
  std::string text;
  const auto append = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t column = 0; column < cells.size(); ++column) {
      const std::string padding(widths[column] - display_width(cells[column]), ' ');
      if (column > 0) line += "  ";
      line += numeric[column] ? padding + cells[column] : cells[column] + padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  };
  append(headers_);
  for (const auto& row : rows_) append(row);
  return text;
}

std::string Table::markdown() const {
  std::string text;
  const auto append = [&](const std::vector<std::string>& cells) {
    text += "|";
    for (const auto& cell : cells) text += " " + without_pipes(cell) + " |";
    text += "\n";
  };
  append(headers_);
  text += "|";
  for (size_t column = 0; column < headers_.size(); ++column) {
    text += column > 0 && is_numeric(column) ? "---:|" : "---|";
  }
  text += "\n";
  for (const auto& row : rows_) append(row);
  return text;
}

}  // namespace cadre
