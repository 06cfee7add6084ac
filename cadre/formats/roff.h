#pragma once

/// Manual pages as plain text.

#include <string>
#include <string_view>

namespace cadre {

/// Drops the markup of a manual page (man(7), the common part of mdoc(7), tbl tables) and keeps
/// what a reader sees: headings and tags on their own lines, paragraphs as one line each with a
/// blank line between them, examples line by line. Any input is accepted; valid UTF-8 gives valid
/// UTF-8.
std::string strip_roff(std::string_view page);

}  // namespace cadre
