#include "cadre/base/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>

#include "cadre/base/text.h"

namespace cadre {
namespace {

constexpr std::string_view kEraseLine = "\r\x1b[K";

struct LiveLines {
  std::mutex mutex;
  std::map<std::FILE*, std::string> text;
};

LiveLines& live_lines() {
  // Never destroyed: a log message may come as late as the destructors of statics.
  static auto* const lines = new LiveLines;
  return *lines;
}

void write(std::FILE* stream, std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stream);
}

}  // namespace

bool is_terminal(std::FILE* stream) {
  const char* const term = std::getenv("TERM");
  const bool dumb = term == nullptr || std::string_view(term) == "dumb";
  return !dumb && isatty(fileno(stream)) == 1;
}

bool shows_color(std::FILE* stream) {
  const char* const no_color = std::getenv("NO_COLOR");
  return is_terminal(stream) && (no_color == nullptr || *no_color == '\0');
}

int terminal_width(std::FILE* stream) {
  winsize size = {};
  if (ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  const char* const columns = std::getenv("COLUMNS");
  const int width = columns == nullptr ? 0 : std::atoi(columns);
  return width > 0 ? width : 80;
}

void set_live_line(std::FILE* stream, std::string_view text) {
  // One column short: a full last column makes some terminals wrap.
  const auto columns = static_cast<size_t>(std::max(1, terminal_width(stream) - 1));
  const std::string line(fit_width(text, columns));
  LiveLines& live = live_lines();
  const std::lock_guard lock(live.mutex);
  write(stream, std::string(kEraseLine) + line);
  std::fflush(stream);
  live.text[stream] = line;
}

void clear_live_line(std::FILE* stream) {
  LiveLines& live = live_lines();
  const std::lock_guard lock(live.mutex);
  if (live.text.erase(stream) == 0) return;
  write(stream, kEraseLine);
  std::fflush(stream);
}

void print_line(std::FILE* stream, std::string_view text) {
  LiveLines& live = live_lines();
  const std::lock_guard lock(live.mutex);
  const auto line = live.text.find(stream);
  const bool above = line != live.text.end();
  std::string output(above ? kEraseLine : "");
  output.append(text).append("\n");
  if (above) output += line->second;
  write(stream, output);
  std::fflush(stream);
}

}  // namespace cadre
