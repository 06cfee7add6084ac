#pragma once

/// How much memory this process may use, by what the machine has free and what its control groups
/// allow.

#include <cstdint>
#include <filesystem>
#include <optional>

namespace cadre::engine {

struct MemoryLimits {
  int64_t machine_total = 0;      ///< MemTotal
  int64_t machine_available = 0;  ///< MemAvailable: free, or the page cache's and quick to take
  std::optional<int64_t> group_limit;  ///< the smallest limit of this process's control groups
  int64_t group_usage = 0;             ///< of that group, without page cache that can be dropped
  int64_t own_resident = 0;            ///< this process's anonymous memory now

  /// The most this process may have in all without pushing anyone out: what is free plus what it
  /// has already. Its own file pages count as free, because the kernel can drop them.
  int64_t usable() const;
};

/// Reads /proc and the control groups (version 1 and 2). `root` stands before their paths, for
/// tests. What cannot be read counts as unlimited. Throws IoError when even /proc/meminfo is
/// missing.
MemoryLimits read_memory_limits(const std::filesystem::path& root = "/");

/// The default budget: usable memory less a margin for the kernel and others, 1/16 of it and at
/// least 256 MiB (but no more than half).
int64_t default_memory(const MemoryLimits& limits);

}  // namespace cadre::engine
