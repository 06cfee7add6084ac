#pragma once

/// Stop watches, and a profile of named sections that stays on: where does a training step's time
/// go?

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace cadre {

class Stopwatch {
 public:
  Stopwatch() : began_(std::chrono::steady_clock::now()) {}
  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count();
  }
  void restart() { began_ = std::chrono::steady_clock::now(); }

 private:
  std::chrono::steady_clock::time_point began_;
};

/// Time by named section, summed over all threads. A timed section costs about 60 ns.
///
///     void gemm(...) {
///       static Profile::Section& section = Profile::global().section("gemm");
///       const ScopedTimer timer(section);
class Profile {
 public:
  struct Section {
    explicit Section(std::string_view section_name) : name(section_name) {}
    const std::string name;
    std::atomic<int64_t> calls = 0;
    std::atomic<int64_t> nanoseconds = 0;       ///< with the sections inside
    std::atomic<int64_t> self_nanoseconds = 0;  ///< without them
  };

  struct Entry {
    std::string name;
    int64_t calls;
    double seconds;       ///< with the sections inside it
    double self_seconds;  ///< without them: these add up
  };

  /// The process's profile.
  static Profile& global();

  /// The section of this name, made when new; the reference stays valid as long as the profile.
  Section& section(std::string_view name);

  /// Sections that were entered since the last reset, the one with the most time of its own first.
  std::vector<Entry> entries() const;

  /// Sets all times to zero; a timer that runs meanwhile counts in full when it stops.
  void reset();

  /// entries() as a table with each section's share of `wall_seconds` (of the sum when it is 0) and
  /// a row for the rest.
  std::string table(double wall_seconds = 0) const;

 private:
  mutable std::mutex mutex_;
  std::list<Section> sections_;
};

/// Adds its lifetime to a section. Timers of one thread nest like their scopes.
class ScopedTimer {
 public:
  explicit ScopedTimer(Profile::Section& section);
  ScopedTimer(Profile& profile, std::string_view name) : ScopedTimer(profile.section(name)) {}
  ~ScopedTimer();
  ScopedTimer(const ScopedTimer&) = delete;
  ScopedTimer& operator=(const ScopedTimer&) = delete;

 private:
  Profile::Section& section_;
  ScopedTimer* const outer_;
  int64_t inner_nanoseconds_ = 0;  ///< spent in timers inside this one
  const std::chrono::steady_clock::time_point began_;
};

}  // namespace cadre
