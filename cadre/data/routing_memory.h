#pragma once

/// "Routing memory": what decides the right experts of every layer is seen by the first layer only.
/// A tag c in 0 ... tags - 1 and z ~ N(0, 1); the target follows `layers` steps
///   z <- z + tanh(z A[l, c]),   A ~ N(0, weight_std^2 / width) fixed.
/// A model reads z; its first router also reads 2 onehot(c).

#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace cadre {

struct RoutingMemoryOptions {
  int64_t tags = 8;
  int64_t width = 12;
  int64_t layers = 4;
  double weight_std = 1.2;  ///< the variance is 1.44 / width
};

struct RoutingMemoryBatch {
  torch::Tensor z;        ///< [N, width]
  torch::Tensor tag;      ///< [N] int64
  torch::Tensor tag_hot;  ///< [N, tags]: 2 where the tag is
  torch::Tensor y;        ///< [N, width]
};

class RoutingMemory {
 public:
  /// Throws UsageError for sizes below 1.
  RoutingMemory(const RoutingMemoryOptions& options, uint64_t seed);
  /// Batch number `index`: a pure function of (seed, index).
  RoutingMemoryBatch batch(int64_t size, uint64_t index) const;

 private:
  RoutingMemoryOptions options_;
  uint64_t seed_;
  std::vector<torch::Tensor> steps_;  ///< [layer * tags + tag]: [width, width]
};

}  // namespace cadre
