#pragma once

/// Memory that a kernel keeps between calls: held in a thread_local variable it is allocated once,
/// so a steady state never enters the allocator (fresh pages of a few MB cost more than the
/// products they serve).

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace cadre::kernels {

class Scratch {
 public:
  /// At least `count` floats, aligned to a cache line, uninitialised; the last call's content is
  /// gone.
  float* floats(int64_t count) {
    if (count > capacity_) {
      capacity_ = (count + 1023) / 1024 * 1024;
      memory_.reset();
      void* block = std::aligned_alloc(64, static_cast<size_t>(capacity_) * sizeof(float));
      if (block == nullptr) {
        capacity_ = 0;
        throw std::bad_alloc();
      }
      memory_.reset(static_cast<float*>(block));
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(float* block) const { std::free(block); }
  };
  std::unique_ptr<float[], Free> memory_;
  int64_t capacity_ = 0;
};

}  // namespace cadre::kernels
