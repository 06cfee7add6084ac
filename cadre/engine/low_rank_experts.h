#pragma once

/// Experts stored as low rank plus a few whole rows: y = U (V x), y[rows] += S x for each of the
/// three matrices (Li et al., "Merge, Then Compress", 2024, section 3.3). Written by `cadre
/// compress`; they stay in memory with the trunk, as they are small.

#include <cstdint>
#include <span>
#include <vector>

#include "cadre/engine/compute.h"
#include "cadre/engine/feed_forward.h"

namespace cadre::engine {

/// Runs one expert after the other, each on all threads: for up to a few hundred tokens.
class LowRankFeedForward {
 public:
  LowRankFeedForward(Team& team, kernels::GluKind glu) : team_(team), glu_(glu) {}

  /// out[token] += weight * expert(x[token]) for the job's tokens; out [tokens, hidden].
  void run(const LowRankExpert& expert, const FeedForwardJob& job, Activations& x, float* out);

 private:
  void product(const LowRankMatrix& matrix, const Activations& x, int64_t tokens, int64_t rows,
               std::vector<float>& y);

  Team& team_;
  kernels::GluKind glu_;
  Activations x_, narrow_, inner_;
  std::vector<float> gate_, up_, y_, rows_;
};

/// Reads one expert of a layer. Throws FormatError that names the tensor.
LowRankExpert load_low_rank_expert(const TensorSource& source, Packer& packer, int64_t layer,
                                   int64_t expert);
/// Whether a layer's experts are stored so.
bool has_low_rank_experts(const TensorSource& source, int64_t layer);

}  // namespace cadre::engine
