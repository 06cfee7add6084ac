#include "cadre/base/timer.h"

#include <fmt/format.h>

#include <algorithm>

#include "cadre/base/table.h"

namespace cadre {
namespace {

thread_local ScopedTimer* innermost = nullptr;

std::string share(double seconds, double whole) {
  return whole > 0 ? fmt::format("{:.1f} %", 100 * seconds / whole) : "";
}

}  // namespace

Profile& Profile::global() {
  // Never destroyed: sections are used up to the end of the process.
  static auto* const profile = new Profile;
  return *profile;
}

Profile::Section& Profile::section(std::string_view name) {
  const std::lock_guard lock(mutex_);
  for (Section& section : sections_) {
    if (section.name == name) return section;
  }
  return sections_.emplace_back(name);
}

std::vector<Profile::Entry> Profile::entries() const {
  std::vector<Entry> result;
  const std::lock_guard lock(mutex_);
  for (const Section& section : sections_) {
    if (section.calls == 0) continue;
    result.push_back(
        {section.name, section.calls, section.nanoseconds * 1e-9, section.self_nanoseconds * 1e-9});
  }
  std::stable_sort(result.begin(), result.end(),
                   [](const Entry& a, const Entry& b) { return a.self_seconds > b.self_seconds; });
  return result;
}

void Profile::reset() {
  const std::lock_guard lock(mutex_);
  for (Section& section : sections_) {
    section.calls = 0;
    section.nanoseconds = 0;
    section.self_nanoseconds = 0;
  }
}

std::string Profile::table(double wall_seconds) const {
  const auto all = entries();
  double sum = 0;
  for (const Entry& entry : all) sum += entry.self_seconds;
  const double whole = wall_seconds > 0 ? wall_seconds : sum;
  Table table({"section", "calls", "seconds", "own seconds", "own share"});
  for (const Entry& entry : all) {
    table.add_row({entry.name, fmt::format("{}", entry.calls), fmt::format("{:.3f}", entry.seconds),
                   fmt::format("{:.3f}", entry.self_seconds), share(entry.self_seconds, whole)});
  }
  if (wall_seconds > 0) {
    const double rest = std::max(0.0, wall_seconds - sum);
    table.add_row({"(elsewhere)", "", "", fmt::format("{:.3f}", rest), share(rest, whole)});
  }
  return table.str();
}

ScopedTimer::ScopedTimer(Profile::Section& section)
    : section_(section), outer_(innermost), began_(std::chrono::steady_clock::now()) {
  innermost = this;
}

ScopedTimer::~ScopedTimer() {
  const auto lifetime = std::chrono::steady_clock::now() - began_;
  const int64_t elapsed = std::chrono::nanoseconds(lifetime).count();
  section_.calls.fetch_add(1, std::memory_order_relaxed);
  section_.nanoseconds.fetch_add(elapsed, std::memory_order_relaxed);
  section_.self_nanoseconds.fetch_add(elapsed - inner_nanoseconds_, std::memory_order_relaxed);
  if (outer_ != nullptr) outer_->inner_nanoseconds_ += elapsed;
  innermost = outer_;
}

}  // namespace cadre
