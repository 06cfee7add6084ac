#include "cadre/engine/memory_limits.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <string>
#include <string_view>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"

namespace cadre::engine {
namespace {

namespace fs = std::filesystem;

/// Above it a version-1 limit means none (the kernel shows 2^63 rounded down to a page).
constexpr int64_t kUnlimited = int64_t{1} << 60;

std::string text_of(const fs::path& path) {
  try {
    return read_file(path);
  } catch (const IoError&) {
    return {};
  }
}

std::optional<int64_t> number_of(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return std::nullopt;
  text = text.substr(begin);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) return std::numeric_limits<int64_t>::max();
  if (error != std::errc()) return std::nullopt;
  return value;
}

/// The number behind "KEY" at the start of a line, 0 when it is not there.
int64_t field(std::string_view text, std::string_view key) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (line.starts_with(key) && line.size() > key.size() &&
        (line[key.size()] == ' ' || line[key.size()] == ':'))
      return number_of(line.substr(key.size() + 1)).value_or(0);
    at = end + 1;
  }
  return 0;
}

int64_t kib_field(std::string_view text, std::string_view key) { return field(text, key) * 1024; }

/// One control group's files.
struct GroupFiles {
  const char *limit, *usage, *active_file, *inactive_file;
};
constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                  "total_active_file", "total_inactive_file"};
constexpr GroupFiles kVersion2 = {"memory.max", "memory.current", "active_file", "inactive_file"};

void read_group(const fs::path& folder, const GroupFiles& files, MemoryLimits& limits) {
  const auto limit = number_of(text_of(folder / files.limit));
  if (!limit || *limit >= kUnlimited) return;
  if (limits.group_limit && *limits.group_limit <= *limit) return;
  const std::string statistics = text_of(folder / "memory.stat");
  const int64_t droppable =
      field(statistics, files.active_file) + field(statistics, files.inactive_file);
  const int64_t usage = number_of(text_of(folder / files.usage)).value_or(0);
  limits.group_limit = limit;
  limits.group_usage = std::max<int64_t>(0, usage - droppable);
}

/// The group and all above it: the tightest counts. Inside a container the path that /proc shows
/// may not exist, but the group itself is mounted at the top.
void read_groups(const fs::path& mount, std::string_view group, const GroupFiles& files,
                 MemoryLimits& limits) {
  read_group(mount, files, limits);
  fs::path folder = mount;
  for (const fs::path& part : fs::path(group).relative_path()) {
    if (part == "..") return;
    folder /= part;
    read_group(folder, files, limits);
  }
}

/// A line of /proc/self/cgroup: "4:memory:/user" in version 1, "0::/user" in version 2.
void read_group_line(const fs::path& root, std::string_view line, MemoryLimits& limits) {
  const size_t first = line.find(':');
  const size_t second = line.find(':', first + 1);
  if (first == std::string_view::npos || second == std::string_view::npos) return;
  const std::string controllers =
      "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
  const std::string_view group = line.substr(second + 1);
  const fs::path mount = root / "sys/fs/cgroup";
  if (controllers == ",,")
    read_groups(mount, group, kVersion2, limits);
  else if (controllers.find(",memory,") != std::string::npos)
    read_groups(mount / "memory", group, kVersion1, limits);
}

}  // namespace

int64_t MemoryLimits::usable() const {
  int64_t free = machine_available;
  if (group_limit) free = std::min(free, *group_limit - group_usage);
  return std::max<int64_t>(0, free) + own_resident;
}

MemoryLimits read_memory_limits(const fs::path& root) {
  const std::string machine = read_file(root / "proc/meminfo");
  MemoryLimits limits;
  limits.machine_total = kib_field(machine, "MemTotal");
  limits.machine_available = kib_field(machine, "MemAvailable");
  limits.own_resident = kib_field(text_of(root / "proc/self/status"), "RssAnon");
  std::string_view rest;
  const std::string groups = text_of(root / "proc/self/cgroup");
  for (rest = groups; !rest.empty();) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    read_group_line(root, rest.substr(0, end), limits);
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return limits;
}

int64_t default_memory(const MemoryLimits& limits) {
  const int64_t usable = limits.usable();
  const int64_t margin = std::max<int64_t>(usable / 16, int64_t{256} << 20);
  return usable - std::min(margin, usable / 2);
}

}  // namespace cadre::engine
