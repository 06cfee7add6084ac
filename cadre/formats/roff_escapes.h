#pragma once

/// The escape sequences of roff: "\fB", "\-", "\(bu", "\[u2014]" ...

#include <string>
#include <string_view>

namespace cadre {

struct RoffText {
  std::string text;
  bool continues = false;  ///< ended in \c: the next line joins without a space
};

/// Replaces every escape by the text a reader sees, often nothing. A comment ends the line.
RoffText unescape_roff(std::string_view line);

/// The line without its comment (from \" or \# on).
std::string_view without_roff_comment(std::string_view line);

}  // namespace cadre
