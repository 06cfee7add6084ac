#pragma once

/// A model's trunk: everything but the routed experts' matrices, packed and checked against the
/// spec.

#include <cstdint>
#include <memory>
#include <vector>

#include "cadre/engine/architectures.h"
#include "cadre/engine/panel_memory.h"
#include "cadre/engine/router.h"
#include "cadre/engine/row_reader.h"

namespace cadre::engine {

/// y = W x + bias; the bias may be empty.
struct Linear {
  kernels::PanelMatrix matrix = {};
  std::vector<float> bias;
};

struct Norm {
  std::vector<float> weight, bias;  ///< the bias may be empty
};

struct FeedForwardWeights {
  kernels::PanelMatrix gate = {}, up = {}, down = {};
};

/// Multi-head latent attention in absorbed form: a head's query without positions goes through
/// `key_up` [kv_rank, nope] to meet the cached latent itself, and the weighted latent through
/// `value_up` [value, kv_rank].
struct LatentWeights {
  Linear q_down, q_up, kv_down;  ///< q_down is empty when queries are not compressed
  std::vector<float> q_norm, kv_norm;
  std::vector<kernels::PanelMatrix> key_up, value_up;  ///< one a head
};

/// y = U (V x), y[rows] += S x (low_rank_experts.h).
struct LowRankMatrix {
  Linear u, v, sparse;
  std::vector<int32_t> rows;  ///< of S; empty = no S
};
struct LowRankExpert {
  LowRankMatrix gate, up, down;
};

/// The cell that the recurrent routers of all layers share: [gates p, p] and a bias each.
struct RecurrentCell {
  Linear input, state;
};

struct LayerWeights {
  Norm attention_norm, ffn_norm;
  Linear q, k, v, output;
  std::vector<float> q_norm, k_norm;
  std::vector<float> sinks;  ///< one logit a head; empty = none
  LatentWeights latent;
  FeedForwardWeights dense;  ///< the layer's only feed-forward, or its shared expert
  std::vector<float> shared_gate;
  Linear router;
  std::vector<float> selection_bias;
  Linear router_proj;  ///< recurrent routers: [p, hidden], what the cell reads
  std::shared_ptr<const RecurrentCell> router_cell;
  /// Table routers: the expert of each token id; one entry is that of every token.
  std::vector<int32_t> router_table;
  /// [E] where experts share weights: the lowest expert with the same; empty = each has its own.
  std::vector<int32_t> expert_map;
  std::vector<LowRankExpert> low_rank;  ///< [E], those of expert_map; empty = whole matrices
  std::vector<float> gate_bias, up_bias, down_bias;  ///< routed experts' [E, width]; may be empty
};

struct ModelWeights {
  std::unique_ptr<RowReader> embedding;  ///< rows are read from the file as tokens come
  std::vector<LayerWeights> layers;
  Norm output_norm;
  Linear output;
  std::vector<float> rope_factors;
};

/// Packs the trunk. Throws FormatError that names a tensor: missing, of another shape, or one that
/// the architecture does not use (the results would be wrong without it). `context`: tokens that
/// sequences may have, which chooses between a model's factors for short and long ones.
ModelWeights load_weights(const TensorSource& source, Packer& packer, int64_t context);

/// One expert's matrix, its shape checked: `role` is "gate", "up" or "down".
SourceTensor expert_matrix(const TensorSource& source, int64_t layer, const char* role,
                           int64_t expert);

}  // namespace cadre::engine
