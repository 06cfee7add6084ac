#pragma once

/// Task vectors of whole checkpoints: what a fine-tuned model is away from its base, compressed to
/// ternary (delta_file.h), added back, combined.
///
/// Yadav et al., "ComPEFT" (2023); combination after Ilharco et al., "Editing Models with Task
/// Arithmetic" (2023) and Yadav et al., "TIES-Merging" (2023).

#include <filesystem>
#include <memory>
#include <vector>

#include "cadre/reshape/delta_file.h"
#include "cadre/reshape/ops.h"

namespace cadre::reshape {

/// tuned - base over all floating-point tensors as one vector, in the base's order: one threshold
/// and one scale. `base` null: the tuned tensors themselves (a compressed adapter, theta_0 = 0).
/// Streams. Throws UsageError naming the tensor that one of the two lacks or has in another shape,
/// or that holds a NaN.
DeltaHeader extract_delta(const std::filesystem::path& path, const Checkpoint* base,
                          const Checkpoint& tuned, const TernaryOptions& options);

struct WeightedDelta {
  std::shared_ptr<const DeltaReader> delta;
  double weight = 1;
};

/// base + sum of weight * delta, in float32, rounded once to the base's types. Tensors that no
/// delta has are copied. Throws UsageError for a delta that was made for another base (by content)
/// or does not fit it.
Plan apply_deltas(const CheckpointPtr& base, const std::vector<WeightedDelta>& deltas);

enum class DeltaMerge {
  kSum,  ///< sum of weight * delta
  kTies  ///< mean of the weighted entries whose sign is that of their sum
};

/// One delta of several over the same tensors and base: combined in float32, made ternary again.
/// Throws UsageError for deltas that do not fit together.
DeltaHeader combine_deltas(const std::filesystem::path& path,
                           const std::vector<WeightedDelta>& deltas, DeltaMerge merge,
                           const TernaryOptions& options);

/// The operation "apply_delta" of plan files: deltas, weights.
OpInfo apply_delta_op();

}  // namespace cadre::reshape
