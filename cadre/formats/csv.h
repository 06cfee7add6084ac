#pragma once

/// Tables of numbers as text.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace cadre {

struct NumberTable {
  int64_t rows = 0, columns = 0;
  std::vector<float> values;  ///< [rows, columns]
};

/// Numbers with commas between, one row a line, all rows of one length; empty lines count for
/// nothing. Throws FormatError naming `where` and the line: not a number, a row of another length,
/// no rows.
NumberTable parse_numbers(std::string_view text, const std::string& where);

}  // namespace cadre
