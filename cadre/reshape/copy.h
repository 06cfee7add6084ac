#pragma once

/// The operation "copy": the same tensors in other shards, or in another type.

#include "cadre/reshape/ops.h"

namespace cadre::reshape {

/// Parameters: dtype ("" = as stored, else F32, F16, BF16, F64).
OpInfo copy_op();

/// out = in, in the output's type.
std::shared_ptr<TileKernel> cast_kernel();
/// The tensor as `dtype` (floating-point tensors; others keep their type), under `name` ("" = its
/// own).
Step cast_step(const SchemaTensor& tensor, int checkpoint, DType dtype,
               const std::string& name = "");

/// The dtype of a parameter: "" gives `fallback`. Takes the format's names (BF16) and torch's
/// (bfloat16). Throws UsageError.
DType dtype_param(const std::string& text, DType fallback, const std::string& where);

}  // namespace cadre::reshape
