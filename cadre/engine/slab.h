#pragma once

/// One large piece of anonymous memory, at a multiple of 2 MiB and in huge pages where the kernel
/// gives them (madvise): reads past the processor's caches cost fewer address translations, and
/// direct reading pins hundreds of times fewer pages.

#include <cstddef>
#include <cstdint>

namespace cadre::engine {

class Slab {
 public:
  /// Zeroes that take memory only when touched. Throws Error when the address space is refused.
  explicit Slab(int64_t bytes);
  ~Slab();
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  std::byte* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  std::byte* data_ = nullptr;
  int64_t bytes_ = 0;
  void* map_ = nullptr;
  int64_t map_bytes_ = 0;
};

}  // namespace cadre::engine
