#pragma once

/// A running display of long work: a bar redrawn in place on a terminal, a plain line every few
/// seconds (no control codes) elsewhere, and one final line that stays.

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace cadre {

enum class ProgressStyle {
  kAuto,      ///< kTerminal when the stream is a terminal, else kPlain
  kTerminal,  ///< a bar, redrawn in place
  kPlain,     ///< whole lines
  kSilent     ///< nothing
};

struct ProgressOptions {
  std::string label;           ///< what is being done, e.g. "train moe"
  int64_t total = 0;           ///< how much there is to do; 0: not known
  int64_t start = 0;           ///< already done by an earlier run: no part of the speed
  std::string unit = "steps";  ///< what is counted, plural
  ProgressStyle style = ProgressStyle::kAuto;
  double redraw_seconds = 0.1;  ///< at most one redraw of the bar in this time
  double line_seconds = 5;      ///< at most one plain line in this time
  std::FILE* stream = stderr;
};

/// Any thread may call any member. An advance() between redraws costs tens of nanoseconds.
class Progress {
 public:
  explicit Progress(ProgressOptions options);
  /// Finishes; when not everything was done (an exception, Ctrl-C), the final line says so.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void advance(int64_t count = 1);
  int64_t done() const { return done_.load(std::memory_order_relaxed); }

  /// Shows "name value" behind the bar from the next redraw on, e.g. field("loss", "3.21"). Fields
  /// keep the order in which they came first; an empty value hides one.
  void field(const std::string& name, const std::string& value);

  /// Prints the final line. Later calls do nothing.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  void draw(Clock::time_point now);
  std::string line(Clock::time_point now, int columns) const;
  std::string fields() const;
  std::string final_line(Clock::time_point now) const;

  const ProgressOptions options_;
  const ProgressStyle style_;  ///< never kAuto
  const Clock::time_point began_;
  std::atomic<int64_t> done_;
  std::atomic<Clock::rep> next_draw_;
  std::mutex mutex_;  ///< guards what follows
  std::vector<std::pair<std::string, std::string>> fields_;
  bool finished_ = false;
};

}  // namespace cadre
