#pragma once

/// Stages 4 to 6 of a router as parts: which experts each token gets (rows of any length), their
/// weights, the routing. Stages 1 to 3 (affinity, squash, score) are a few tensor operations, see
/// affinity.h; docs/routing.md puts the parts together.

#include <torch/torch.h>

#include "cadre/routing/routing.h"

namespace cadre {

/// Chosen ids by token, in falling order of score: token t has [offsets[t], offsets[t + 1]).
struct Rows {
  torch::Tensor offsets;  ///< [T + 1] int64
  torch::Tensor ids;      ///< [pairs] int32
  int64_t null = 0;       ///< slots that went to null experts and are left out

  int64_t tokens() const { return offsets.size(0) - 1; }
};

/// Rows of a dense selection ids [T, k] int32 without those >= experts (nulls); padding tokens
/// (`valid` [T] bool, false) get empty rows. Throws UsageError for a negative id or shapes that do
/// not fit.
Rows rows_of(const torch::Tensor& ids, int64_t experts, const torch::Tensor& valid = {});

/// The most probable experts of each token up to the one whose probability takes their sum past p:
/// expert j of the falling order is kept iff c_{j-1} <= p, c the cumulative sum (fp32, in that
/// order). At least one, all for p >= 1. probs [T, E] fp32.
Rows row_prefix(const torch::Tensor& probs, double p, const torch::Tensor& valid = {});

enum class Weighting {
  kRaw,         ///< scale * v
  kNormalized,  ///< scale * v / sum of the row's v
  kSoftmax,     ///< scale * softmax of the row's v
};

/// Weights [pairs] of values [T, n] fp32 at the rows' ids, differentiable: one small pass forward
/// and one backward, where gather, sum and divide would make nine.
torch::Tensor row_weights(const torch::Tensor& values, const Rows& rows, Weighting weighting,
                          double scale = 1.0);

/// Puts a decision together; logits and probs are for losses and reports.
Routing routing_of(int64_t experts, const Rows& rows, const torch::Tensor& weights,
                   const torch::Tensor& logits, const torch::Tensor& probs,
                   const torch::Tensor& valid);

}  // namespace cadre
