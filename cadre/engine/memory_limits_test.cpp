#include "cadre/engine/memory_limits.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/test_folder.h"

namespace cadre::engine {
namespace {

constexpr int64_t kMiB = 1 << 20;

/// A machine of 1 GiB, 600 MiB available, this process having 50 MiB.
class FakeMachine {
 public:
  FakeMachine() {
    write("proc/meminfo", "MemTotal:  1048576 kB\nMemFree: 1 kB\nMemAvailable:  614400 kB\n");
    write("proc/self/status", "Name:\tx\nVmRSS:\t 99999 kB\nRssAnon:\t   51200 kB\n");
  }
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((folder_ / path).parent_path());
    write_file(folder_ / path, text);
  }
  MemoryLimits limits() const { return read_memory_limits(folder_.path()); }

 private:
  TestFolder folder_;
};

TEST(MemoryLimits, WithoutGroupsTheMachineCounts) {
  const FakeMachine machine;
  const MemoryLimits limits = machine.limits();
  EXPECT_EQ(limits.machine_total, 1024 * kMiB);
  EXPECT_FALSE(limits.group_limit);
  EXPECT_EQ(limits.usable(), 650 * kMiB);
  EXPECT_EQ(default_memory(limits), 394 * kMiB);
}

TEST(MemoryLimits, VersionTwoTheTightestGroupCountsWithoutPageCache) {
  FakeMachine machine;
  machine.write("proc/self/cgroup", "0::/a/b\n");
  machine.write("sys/fs/cgroup/a/memory.max", "209715200\n");
  machine.write("sys/fs/cgroup/a/memory.current", "104857600\n");
  machine.write("sys/fs/cgroup/a/memory.stat",
                "anon 1\ninactive_file 20971520\nactive_file 10485760\n");
  machine.write("sys/fs/cgroup/a/b/memory.max", "max\n");
  const MemoryLimits limits = machine.limits();
  EXPECT_EQ(limits.group_limit, 200 * kMiB);
  EXPECT_EQ(limits.group_usage, 70 * kMiB);
  EXPECT_EQ(limits.usable(), 180 * kMiB) << "130 free and the 50 it has";
}

TEST(MemoryLimits, VersionOneAndUnlimited) {
  FakeMachine machine;
  machine.write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/g\n0::/\n");
  machine.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  EXPECT_FALSE(machine.limits().group_limit);
  machine.write("sys/fs/cgroup/memory/g/memory.limit_in_bytes", "52428800\n");
  machine.write("sys/fs/cgroup/memory/g/memory.usage_in_bytes", "41943040\n");
  EXPECT_EQ(machine.limits().group_limit, 50 * kMiB);
  EXPECT_EQ(machine.limits().usable(), 60 * kMiB);
}

TEST(MemoryLimits, OddTextsAreHarmless) {
  FakeMachine machine;
  machine.write("proc/self/cgroup", "nonsense\n:\n0::/../../etc\n0::\n");
  machine.write("sys/fs/cgroup/memory.max", "\n");
  EXPECT_FALSE(machine.limits().group_limit);
  const TestFolder empty;
  EXPECT_THROW(read_memory_limits(empty.path()), IoError);
}

TEST(MemoryLimits, ThisMachineHasSome) { EXPECT_GT(read_memory_limits().usable(), 0); }

}  // namespace
}  // namespace cadre::engine
