#include "cadre/base/progress.h"

#include <fmt/format.h>

#include <algorithm>

#include "cadre/base/terminal.h"
#include "cadre/base/text.h"
#include "cadre/base/units.h"

namespace cadre {
namespace {

ProgressStyle resolved(const ProgressOptions& options) {
  if (options.style != ProgressStyle::kAuto) return options.style;
  return is_terminal(options.stream) ? ProgressStyle::kTerminal : ProgressStyle::kPlain;
}

std::string bar(double fraction, int columns) {
  const auto filled = static_cast<size_t>(fraction * columns);
  std::string text(filled, '=');
  if (filled < static_cast<size_t>(columns)) text += '>';
  text.resize(static_cast<size_t>(columns), ' ');
  return "[" + text + "]";
}

}  // namespace

Progress::Progress(ProgressOptions options)
    : options_(std::move(options)),
      style_(resolved(options_)),
      began_(Clock::now()),
      done_(options_.start),
      next_draw_(0) {
  // A bar appears at once; the first plain line is due when there is something to tell.
  const double wait = style_ == ProgressStyle::kPlain ? options_.line_seconds : 0;
  const auto due =
      began_ + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(wait));
  next_draw_ = due.time_since_epoch().count();
  if (style_ == ProgressStyle::kTerminal) draw(began_);
}

Progress::~Progress() { finish(); }

void Progress::advance(int64_t count) {
  done_.fetch_add(count, std::memory_order_relaxed);
  if (style_ == ProgressStyle::kSilent) return;
  const auto now = Clock::now();
  if (now.time_since_epoch().count() >= next_draw_.load(std::memory_order_relaxed)) draw(now);
}

void Progress::field(const std::string& name, const std::string& value) {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(fields_.begin(), fields_.end(),
                                  [&](const auto& field) { return field.first == name; });
  if (found == fields_.end()) {
    fields_.emplace_back(name, value);
  } else {
    found->second = value;
  }
}

void Progress::draw(Clock::time_point now) {
  const std::lock_guard lock(mutex_);
  // Of many threads that find a redraw due, one draws.
  if (finished_ || now.time_since_epoch().count() < next_draw_) return;
  const bool terminal = style_ == ProgressStyle::kTerminal;
  const double wait = terminal ? options_.redraw_seconds : options_.line_seconds;
  const auto pause =
      std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(wait));
  next_draw_ = (now + pause).time_since_epoch().count();
  if (terminal) {
    set_live_line(options_.stream, line(now, terminal_width(options_.stream)));
  } else {
    print_line(options_.stream, line(now, 0));
  }
}

void Progress::finish() {
  const std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  if (style_ == ProgressStyle::kSilent) return;
  if (style_ == ProgressStyle::kTerminal) clear_live_line(options_.stream);
  print_line(options_.stream, final_line(Clock::now()));
}

// `columns` is the terminal's width, 0 for a plain line without a bar.
std::string Progress::line(Clock::time_point now, int columns) const {
  const double seconds = std::chrono::duration<double>(now - began_).count();
  const int64_t done = done_;
  std::string text = one_line(options_.label);
  if (options_.total <= 0) {
    return text + fmt::format("  {} {}", done, options_.unit) + fields() + "  " +
           format_duration(seconds);
  }
  const double fraction = std::clamp(static_cast<double>(done) / options_.total, 0.0, 1.0);
  if (columns > 0) text += " " + bar(fraction, std::clamp(columns / 5, 8, 30));
  text += fmt::format(" {:3.0f}% {}/{} {}", 100 * fraction, done, options_.total, options_.unit);
  text += fields();
  if (done > options_.start && done < options_.total) {
    const double pace = seconds / static_cast<double>(done - options_.start);
    text += "  ETA " + format_duration(pace * static_cast<double>(options_.total - done));
  }
  return text;
}

std::string Progress::fields() const {
  std::string text;
  for (const auto& [name, value] : fields_) {
    if (!value.empty()) text += "  " + one_line(name) + " " + one_line(value);
  }
  return text;
}

std::string Progress::final_line(Clock::time_point now) const {
  const double seconds = std::chrono::duration<double>(now - began_).count();
  const int64_t done = done_;
  const bool complete = done >= options_.total;
  const std::string counted = complete
                                  ? fmt::format("{} {}", done, options_.unit)
                                  : fmt::format("{}/{} {}", done, options_.total, options_.unit);
  return fmt::format("{} {}: {} in {}{}", one_line(options_.label),
                     complete ? "done" : "stopped early", counted, format_duration(seconds),
                     fields());
}

}  // namespace cadre
