#pragma once

/// A stream that may be a terminal, and its one live line: the bottom line that a progress display
/// redraws in place, while other lines (log messages, errors) are printed above it.

#include <cstdio>
#include <string>
#include <string_view>

namespace cadre {

/// True when the stream is a terminal that can move its cursor (TERM is not "dumb").
bool is_terminal(std::FILE* stream);

/// True when colours may be used: a terminal, and NO_COLOR (no-color.org) is not set.
bool shows_color(std::FILE* stream);

/// Columns of the terminal; otherwise the environment's COLUMNS, otherwise 80.
int terminal_width(std::FILE* stream);

/// Draws the live line of `stream`, in place of the one before. Cut to the terminal's width.
void set_live_line(std::FILE* stream, std::string_view text);

/// Erases the live line of `stream`, if there is one.
void clear_live_line(std::FILE* stream);

/// Prints one whole line, above the live line. Lines of different threads never mix.
void print_line(std::FILE* stream, std::string_view text);

}  // namespace cadre
