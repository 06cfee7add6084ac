#pragma once

/// A layer's attention from normalised input to the sum over values: projections, norms, positions,
/// the cache. The output projection is the caller's.

#include <cstdint>
#include <vector>

#include "cadre/engine/attention.h"
#include "cadre/engine/compute.h"
#include "cadre/engine/rope.h"

namespace cadre::engine {

/// Consecutive tokens of one sequence within a pass.
struct BatchSlice {
  KvCache* cache;
  int64_t first_position, tokens;
  int64_t first_row;  ///< among the pass's tokens
};

/// The tokens of one pass through the layers.
struct Batch {
  std::vector<BatchSlice> slices;
  int64_t tokens = 0;
  std::vector<const BatchSlice*> slice_of;  ///< [tokens]
  std::vector<float> angles;                ///< [tokens, rope dimension]

  int64_t position(int64_t row) const {
    const BatchSlice& slice = *slice_of[static_cast<size_t>(row)];
    return slice.first_position + row - slice.first_row;
  }
};

class AttentionLayer {
 public:
  AttentionLayer(Team& team, const ModelSpec& spec, const Rope& rope)
      : team_(team), spec_(spec), rope_(rope) {}

  /// x: the batch's normalised rows, quantised. Leaves [tokens, heads * value width] in `out`,
  /// quantised. Writes keys and values of these tokens into the caches.
  void run(int64_t layer, const LayerWeights& weights, const Activations& x, const Batch& batch,
           Activations& out);

 private:
  void run_plain(int64_t layer, const LayerWeights& weights, const Activations& x,
                 const Batch& batch, Activations& out);
  void prepare_plain(int64_t layer, const LayerWeights& weights, const Batch& batch, int64_t row);
  void run_latent(int64_t layer, const LayerWeights& weights, const Activations& x,
                  const Batch& batch, Activations& out);
  void cache_latent(int64_t layer, const LatentWeights& weights, const Batch& batch, int64_t row);
  void absorb(const LatentWeights& weights, const Batch& batch);
  void expand(const LatentWeights& weights, const Batch& batch, Activations& out);
  void attend_batch(int64_t layer, const LayerWeights& weights, const Batch& batch, float* out);
  const float* angles_of(const Batch& batch, int64_t row) const {
    return batch.angles.data() + row * rope_.dimension();
  }

  Team& team_;
  const ModelSpec& spec_;
  const Rope& rope_;
  std::vector<float> q_, k_, v_;                 ///< [tokens, heads * width]
  Activations compressed_, unrotated_, latent_;  ///< latent attention's steps
  std::vector<float> absorbed_, sums_;           ///< [tokens, heads, kv_rank (+ rope)]
};

}  // namespace cadre::engine
