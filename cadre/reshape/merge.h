#pragma once

/// Several models of one architecture become one, tensor by tensor (merge_config.h says how, in
/// mergekit's words; merge_methods.h lists the methods). Values are computed in float32 or float64
/// and rounded once, to `out_dtype`, else `dtype`, else what the tensor had.

#include <span>

#include "cadre/reshape/merge_config.h"
#include "cadre/reshape/ops.h"

namespace cadre::reshape {

/// The operation "merge"; its one parameter `config` is a mergekit document, its inputs the
/// document's models in order of appearance.
OpInfo merge_op();

/// `models` are config.models, opened. Throws UsageError: models whose tensors or shapes differ, a
/// missing tensor or parameter, layers that are not there.
Plan plan_merge(const MergeConfig& config, std::span<const CheckpointPtr> models);

}  // namespace cadre::reshape
