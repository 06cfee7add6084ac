#pragma once

/// Where a model's experts live while it runs: all in memory, or in a cache that a memory budget
/// allows.

#include <memory>
#include <optional>

#include "cadre/engine/expert_files.h"
#include "cadre/engine/expert_provider.h"
#include "cadre/engine/panel_memory.h"
#include "cadre/engine/session.h"
#include "cadre/engine/tensor_source.h"
#include "cadre/engine/weights.h"

namespace cadre::engine {

/// What float matrices are kept as: options.quantize_to for a directory, else as they are.
std::optional<kernels::BlockType> kept_as(const TensorSource& source, const ModelOptions& options);
PackedType packed_types(const TensorSource& source, const ModelOptions& options);

/// Names of policy and predictor, also where no expert streams. Throws UsageError.
void check_expert_options(const ModelOptions& options);

/// Decided before anything is loaded.
struct ExpertPlacement {
  bool streaming = false;
  int64_t memory = 0;  ///< bytes for cache, staging slots and reading buffers; streaming only
};

/// Divides options.memory (or what the machine and its control groups have free, less a margin).
/// kAuto streams only when not everything fits. Throws UsageError: a budget below the least, which
/// it names; kResident when the experts do not fit.
ExpertPlacement place_experts(const TensorSource& source, const ModelOptions& options,
                              int64_t context);

/// The provider of that placement; `source` and `weights` must outlive it.
std::unique_ptr<ExpertProvider> open_experts(const TensorSource& source, Packer& packer,
                                             const ModelWeights& weights,
                                             const ModelOptions& options,
                                             const ExpertPlacement& placement);

}  // namespace cadre::engine
