#include "cadre/base/memory.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace cadre {
namespace {

constexpr size_t kBytes = size_t{64} << 20;

/// Page faults of a buffer that is allocated, written and freed.
int64_t faults_of_a_large_buffer() {
  rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  auto buffer = std::make_unique_for_overwrite<char[]>(kBytes);
  std::fill_n(static_cast<volatile char*>(buffer.get()), kBytes, 1);
  buffer.reset();
  getrusage(RUSAGE_SELF, &after);
  return after.ru_minflt - before.ru_minflt;
}

TEST(KeepFreedMemory, ASecondBufferTakesThePagesOfTheFirst) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__GLIBC__)
  GTEST_SKIP() << "another allocator is at work";
#endif
  keep_freed_memory();
  EXPECT_GT(faults_of_a_large_buffer(), 16);
  EXPECT_LE(faults_of_a_large_buffer(), 16);
}

}  // namespace
}  // namespace cadre
