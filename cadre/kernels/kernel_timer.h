#pragma once

/// Times a kernel that runs on the whole team, for Profile. A call from inside a parallel loop (the
/// products of one attention head, say) belongs to that loop's section and is not timed again.

#include <optional>

#include "cadre/base/parallel.h"
#include "cadre/base/timer.h"

namespace cadre::kernels {

class KernelTimer {
 public:
  explicit KernelTimer(Profile::Section& section) {
    if (!in_parallel_loop()) timer_.emplace(section);
  }

 private:
  std::optional<ScopedTimer> timer_;
};

}  // namespace cadre::kernels
