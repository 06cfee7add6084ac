#pragma once

/// Aligned text tables for the terminal and for reports.

#include <string>
#include <vector>

namespace cadre {

class Table {
 public:
  explicit Table(std::vector<std::string> headers);

  /// Cells may be fewer than the headers (the rest stays empty); UsageError when there are more.
  Table& add_row(std::vector<std::string> cells);

  /// Two spaces between columns, no trailing spaces. A column whose cells all begin like numbers is
  /// aligned to the right. Cells are shown on one line each, whatever they contain.
  std::string str() const;

  /// The same as a Markdown table.
  std::string markdown() const;

 private:
  bool is_numeric(size_t column) const;
  size_t width(size_t column) const;

  std::vector<std::string> headers_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace cadre
