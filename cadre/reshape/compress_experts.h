#pragma once

/// The operation "lowrank_sparse": every routed expert's matrices as low rank plus a few whole rows
/// (low_rank_sparse.h), run by the engine as they are. Tensors of expert 3's gate: "...experts.3.
/// gate_proj.low_rank_u" [H, r], ".low_rank_v" [r, D], ".sparse_rows" int32 [n], ".sparse_weight"
/// [n, D].

#include "cadre/reshape/ops.h"

namespace cadre::reshape {

OpInfo lowrank_sparse_op();

}  // namespace cadre::reshape
