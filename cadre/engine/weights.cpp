#include "cadre/engine/weights.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <string_view>

#include "cadre/base/error.h"
#include "cadre/engine/expert_names.h"
#include "cadre/engine/low_rank_experts.h"
#include "cadre/engine/pack.h"
#include "cadre/engine/router_kinds.h"
#include "cadre/formats/json.h"

namespace cadre::engine {
namespace {

using kernels::BlockType;
using kernels::PanelMatrix;

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "[" : ", ") + std::to_string(size);
  return text.empty() ? "[]" : text + "]";
}

void check_shape(const SourceTensor& tensor, const std::vector<int64_t>& shape,
                 const std::string& where) {
  // Files differ in how they store a vector: [n] or [1, n].
  std::vector<int64_t> found = tensor.shape;
  while (found.size() > shape.size() && found.front() == 1) found.erase(found.begin());
  if (found == shape) return;
  throw FormatError("{}: tensor {} has the shape {}, must be {}", where, quote(tensor.name),
                    shape_text(tensor.shape), shape_text(shape));
}

class Loader {
 public:
  Loader(const TensorSource& source, Packer& packer, int64_t context)
      : source_(source),
        packer_(packer),
        context_(context),
        spec_(source.spec()),
        row_(architecture_named(spec_.architecture, source.where())) {}

  ModelWeights load() {
    ModelWeights weights;
    const SourceTensor& embedding =
        find_checked("token_embd.weight", {spec_.vocabulary, spec_.hidden});
    weights.embedding = std::make_unique<RowReader>(source_, embedding);
    for (int64_t layer = 0; layer < spec_.layers; ++layer) {
      prefix_ = fmt::format("blk.{}.", layer);
      weights.layers.push_back(load_layer(layer));
    }
    prefix_.clear();
    weights.output_norm = norm("output_norm");
    if (source_.find("output.weight") != nullptr) {
      weights.output = linear("output", spec_.vocabulary, spec_.hidden, row_.all_biases, false);
    } else {
      weights.output.matrix = packer_.pack(embedding);
    }
    weights.rope_factors = rope_factors();
    check_all_used();
    return weights;
  }

 private:
  const SourceTensor& find_checked(const std::string& name, const std::vector<int64_t>& shape) {
    const SourceTensor& tensor = source_.require(prefix_ + name);
    check_shape(tensor, shape, source_.where());
    used_.insert(prefix_ + name);
    return tensor;
  }

  bool has(const std::string& name) const { return source_.find(prefix_ + name) != nullptr; }

  std::vector<float> vector(const std::string& name, const std::vector<int64_t>& shape) {
    return floats_of(find_checked(name, shape));
  }

  std::vector<float> optional_vector(const std::string& name, const std::vector<int64_t>& shape,
                                     Presence presence) {
    if (presence == Presence::kOptional && !has(name)) return {};
    return vector(name, shape);
  }

  PanelMatrix matrix(const std::string& name, int64_t rows, int64_t columns) {
    SourceTensor tensor = find_checked(name, {rows, columns});
    tensor.shape = {rows, columns};
    return packer_.pack(tensor);
  }

  /// The vocabulary's bias is optional even where all others are there (gpt-oss).
  Linear linear(const std::string& name, int64_t rows, int64_t columns, Presence bias,
                bool bias_may_be_required = true) {
    return {
        matrix(name + ".weight", rows, columns),
        optional_vector(name + ".bias", {rows}, bias_may_be_required ? bias : Presence::kOptional)};
  }

  Norm norm(const std::string& name) {
    Norm norm = {vector(name + ".weight", {spec_.hidden}), {}};
    if (spec_.norm == NormKind::kLayer) {
      norm.bias = optional_vector(name + ".bias", {spec_.hidden}, Presence::kOptional);
    }
    return norm;
  }

  /// LongRoPE (Ding et al., 2024) has factors for the original context and for longer ones. The
  /// context planned for decides, not a sequence's length, which would change what is cached.
  std::vector<float> rope_factors() {
    const std::vector<int64_t> pairs = {spec_.rope.dimension / 2};
    if (has("rope_freqs.weight")) return vector("rope_freqs.weight", pairs);
    if (!has("rope_factors_long.weight")) return {};
    const auto original = vector("rope_factors_short.weight", pairs);
    const auto longer = vector("rope_factors_long.weight", pairs);
    return context_ > spec_.rope.original_context ? longer : original;
  }

  LayerWeights load_layer(int64_t layer) {
    LayerWeights weights;
    weights.attention_norm = norm("attn_norm");
    if (row_.latent) {
      load_latent(weights.latent);
    } else {
      load_attention(weights);
    }
    weights.output =
        linear("attn_output", spec_.hidden, spec_.heads * spec_.value_width, row_.all_biases);
    if (row_.sinks) weights.sinks = vector("attn_sinks.weight", {spec_.heads});
    weights.ffn_norm = norm(row_.ffn_norm);
    if (spec_.has_experts(layer)) {
      load_experts(layer, weights);
    } else {
      weights.dense = feed_forward("", spec_.intermediate);
    }
    return weights;
  }

  void load_attention(LayerWeights& weights) {
    const int64_t q = spec_.heads * spec_.key_width, k = spec_.kv_heads * spec_.key_width;
    const int64_t v = spec_.kv_heads * spec_.value_width;
    if (has("attn_qkv.weight")) {
      load_fused_attention(weights, q, k, v);
    } else {
      weights.q = linear("attn_q", q, spec_.hidden, row_.qkv_bias);
      weights.k = linear("attn_k", k, spec_.hidden, row_.qkv_bias);
      weights.v = linear("attn_v", v, spec_.hidden, row_.qkv_bias);
    }
    if (spec_.qk_norm == QkNorm::kNone) return;
    const bool full = spec_.qk_norm == QkNorm::kFullWidth;
    weights.q_norm = vector("attn_q_norm.weight", {full ? q : spec_.key_width});
    weights.k_norm = vector("attn_k_norm.weight", {full ? k : spec_.key_width});
  }

  void load_fused_attention(LayerWeights& weights, int64_t q, int64_t k, int64_t v) {
    const SourceTensor& fused = find_checked("attn_qkv.weight", {q + k + v, spec_.hidden});
    weights.q.matrix = packer_.pack(slice_of(fused, 0, q));
    weights.k.matrix = packer_.pack(slice_of(fused, q, k));
    weights.v.matrix = packer_.pack(slice_of(fused, q + k, v));
    const auto bias = optional_vector("attn_qkv.bias", {q + k + v}, row_.qkv_bias);
    if (bias.empty()) return;
    weights.q.bias.assign(bias.begin(), bias.begin() + q);
    weights.k.bias.assign(bias.begin() + q, bias.begin() + q + k);
    weights.v.bias.assign(bias.begin() + q + k, bias.end());
  }

  void load_latent(LatentWeights& weights) {
    const LatentSpec& latent = spec_.latent;
    const int64_t q = spec_.heads * spec_.key_width;
    if (latent.q_rank > 0) {
      weights.q_down = linear("attn_q_a", latent.q_rank, spec_.hidden, Presence::kOptional);
      weights.q_norm = vector("attn_q_a_norm.weight", {latent.q_rank});
      weights.q_up = linear("attn_q_b", q, latent.q_rank, Presence::kOptional);
    } else {
      weights.q_up = linear("attn_q", q, spec_.hidden, Presence::kOptional);
    }
    weights.kv_down = linear("attn_kv_a_mqa", latent.kv_rank + latent.rope_width, spec_.hidden,
                             Presence::kOptional);
    weights.kv_norm = vector("attn_kv_a_norm.weight", {latent.kv_rank});
    if (has("attn_kv_b.weight")) {
      load_joint_up(weights);
    } else {
      load_split_up(weights);
    }
  }

  void load_split_up(LatentWeights& weights) {
    const LatentSpec& latent = spec_.latent;
    const SourceTensor& keys =
        find_checked("attn_k_b.weight", {spec_.heads, latent.kv_rank, latent.nope_width});
    const SourceTensor& values =
        find_checked("attn_v_b.weight", {spec_.heads, latent.value_width, latent.kv_rank});
    for (int64_t head = 0; head < spec_.heads; ++head) {
      weights.key_up.push_back(packer_.pack(entry_of(keys, head)));
      weights.value_up.push_back(packer_.pack(entry_of(values, head)));
    }
  }

  /// Absorbing transposes the keys' half, which quantised blocks do not survive: it becomes BF16.
  void load_joint_up(LatentWeights& weights) {
    const LatentSpec& latent = spec_.latent;
    const int64_t nope = latent.nope_width, rank = latent.kv_rank;
    const int64_t width = nope + latent.value_width;
    const SourceTensor& joint = find_checked("attn_kv_b.weight", {spec_.heads * width, rank});
    const BlockType type = joint.type == BlockType::kF32 ? BlockType::kF32 : BlockType::kBF16;
    std::vector<float> transposed(static_cast<size_t>(nope * rank));
    for (int64_t head = 0; head < spec_.heads; ++head) {
      const auto keys = floats_of(slice_of(joint, head * width, nope));
      for (int64_t i = 0; i < nope; ++i) {
        for (int64_t j = 0; j < rank; ++j) {
          transposed[static_cast<size_t>(j * nope + i)] = keys[static_cast<size_t>(i * rank + j)];
        }
      }
      weights.key_up.push_back(packer_.pack(transposed, rank, nope, type));
      weights.value_up.push_back(
          packer_.pack(slice_of(joint, head * width + nope, latent.value_width)));
    }
  }

  FeedForwardWeights feed_forward(const std::string& suffix, int64_t width) {
    return {matrix("ffn_gate" + suffix + ".weight", width, spec_.hidden),
            matrix("ffn_up" + suffix + ".weight", width, spec_.hidden),
            matrix("ffn_down" + suffix + ".weight", spec_.hidden, width)};
  }

  void load_router(int64_t layer, LayerWeights& weights) {
    if (spec_.router.scorer == Scorer::kTable) {
      weights.router_table = router_table(layer);
      return;
    }
    weights.router.matrix = router_matrix();
    weights.router.bias = optional_vector("ffn_gate_inp.bias", {spec_.experts}, row_.all_biases);
    if (spec_.router.scorer == Scorer::kRecurrent) load_recurrent(weights);
    // What stands in for a router that looks ahead goes by the matrix alone, in both wings.
    if (is_fallback(spec_.router_config)) weights.router.bias.clear();
    // Of the learn wing, and without use in a forward pass.
    if (has("ffn_gate_inp.noise_weight")) used_.insert(prefix_ + "ffn_gate_inp.noise_weight");
  }

  std::vector<int32_t> router_table(int64_t layer) {
    if (spec_.router_config.kind == "stochastic") return {drawn_expert(layer, spec_.experts)};
    std::vector<int32_t> table;
    for (const float expert : vector("ffn_gate_inp.table", {spec_.vocabulary})) {
      if (!(expert >= 0 && expert < static_cast<float>(spec_.experts)) ||
          expert != std::floor(expert)) {
        throw FormatError("{}: the router's table of layer {} has {}, which is no expert",
                          source_.where(), layer, expert);
      }
      table.push_back(static_cast<int32_t>(expert));
    }
    return table;
  }

  void load_recurrent(LayerWeights& weights) {
    const int64_t width = spec_.router.state_width;
    weights.router_proj.matrix = exact_matrix("ffn_gate_inp.proj", width, spec_.hidden);
    if (!cell_) {
      const int64_t rows = (spec_.router_config.text("cell") == "gru" ? 3 : 1) * width;
      auto cell = std::make_shared<RecurrentCell>();
      cell->input = {exact_matrix("ffn_gate_inp.cell.weight_ih", rows, width),
                     vector("ffn_gate_inp.cell.bias_ih", {rows})};
      cell->state = {exact_matrix("ffn_gate_inp.cell.weight_hh", rows, width),
                     vector("ffn_gate_inp.cell.bias_hh", {rows})};
      cell_ = std::move(cell);
    }
    weights.router_cell = cell_;
  }

  PanelMatrix exact_matrix(const std::string& name, int64_t rows, int64_t columns) {
    return packer_.pack(floats_of(find_checked(name, {rows, columns})), rows, columns,
                        BlockType::kF32);
  }

  void load_experts(int64_t layer, LayerWeights& weights) {
    load_router(layer, weights);
    weights.selection_bias =
        optional_vector("exp_probs_b.bias", {spec_.experts}, Presence::kOptional);
    if (spec_.shared_intermediate > 0) {
      weights.dense = feed_forward("_shexp", spec_.shared_intermediate);
    }
    if (spec_.shared_gate == SharedGate::kSigmoid) {
      weights.shared_gate = vector("ffn_gate_inp_shexp.weight", {spec_.hidden});
    }
    const int64_t width = spec_.expert_intermediate;
    weights.gate_bias =
        optional_vector("ffn_gate_exps.bias", {spec_.experts, width}, row_.all_biases);
    weights.up_bias = optional_vector("ffn_up_exps.bias", {spec_.experts, width}, row_.all_biases);
    weights.down_bias =
        optional_vector("ffn_down_exps.bias", {spec_.experts, spec_.hidden}, row_.all_biases);
    weights.expert_map = shared_experts(layer);
    if (!spec_.has_whole_experts(layer)) return load_low_rank(layer, weights);
    if (is_pack(source_)) return;  // its records have been checked when they were found
    for (const char* role : {"gate", "up", "down"}) {
      for (int64_t e = 0; e < spec_.experts; ++e) expert_matrix(source_, layer, role, e);
    }
  }

  /// A merged layer's map (stored expert of each) as the lowest expert with the same weights.
  std::vector<int32_t> shared_experts(int64_t layer) const {
    std::vector<int32_t> map = source_.integers(fmt::format("blk.{}.ffn_exp_map", layer));
    std::vector<int32_t> first(map.size(), -1);
    for (size_t e = 0; e < map.size(); ++e) {
      int32_t& lowest = first[static_cast<size_t>(map[e])];
      if (lowest < 0) lowest = static_cast<int32_t>(e);
      map[e] = lowest;
    }
    return map;
  }

  void load_low_rank(int64_t layer, LayerWeights& weights) {
    weights.low_rank.resize(static_cast<size_t>(spec_.experts));
    for (int64_t e = 0; e < spec_.experts; ++e) {
      const auto at = static_cast<size_t>(e);
      if (!weights.expert_map.empty() && weights.expert_map[at] != e) continue;
      weights.low_rank[at] = load_low_rank_expert(source_, packer_, layer, e);
    }
  }

  /// Routers decide: they stay as exact as the file has them. Null experts' rows follow the others.
  PanelMatrix router_matrix() {
    const int64_t nulls = spec_.router.nulls;
    if (spec_.router.scorer == Scorer::kRecurrent) {
      return exact_matrix("ffn_gate_inp.weight", spec_.experts, spec_.router.state_width);
    }
    auto rows = floats_of(find_checked("ffn_gate_inp.weight", {spec_.experts, spec_.hidden}));
    if (nulls > 0) {
      const auto more = floats_of(find_checked("ffn_gate_inp.null_weight", {nulls, spec_.hidden}));
      rows.insert(rows.end(), more.begin(), more.end());
    }
    return packer_.pack(rows, spec_.experts + nulls, spec_.hidden, BlockType::kF32);
  }

  /// Tensors that nothing asked for would mean another model than the one that runs here.
  void check_all_used() const {
    for (const std::string& name : source_.names()) {
      if (used_.contains(name) || is_beyond_layers(name)) continue;
      if (spec_.experts > 0 && is_routed_expert(name)) continue;
      if (name.starts_with("cadre.")) continue;  // a pack's own
      throw FormatError("{}: tensor {} is not part of a {} model as known here", source_.where(),
                        quote(name), spec_.architecture);
    }
  }

  /// Layers that predict further tokens (nextn_predict_layers) are not run.
  bool is_beyond_layers(const std::string& name) const {
    if (!name.starts_with("blk.")) return false;
    int64_t layer = 0;
    std::from_chars(name.data() + 4, name.data() + name.size(), layer);
    return layer >= spec_.layers;
  }

  const TensorSource& source_;
  Packer& packer_;
  const int64_t context_;
  const ModelSpec& spec_;
  const Architecture& row_;
  std::string prefix_;
  std::set<std::string> used_;
  std::shared_ptr<const RecurrentCell> cell_;
};

}  // namespace

ModelWeights load_weights(const TensorSource& source, Packer& packer, int64_t context) {
  return Loader(source, packer, context).load();
}

SourceTensor expert_matrix(const TensorSource& source, int64_t layer, const char* role,
                           int64_t expert) {
  const ModelSpec& spec = source.spec();
  const bool down = std::string_view(role) == "down";
  const int64_t rows = down ? spec.hidden : spec.expert_intermediate;
  const int64_t columns = down ? spec.expert_intermediate : spec.hidden;
  SourceTensor matrix =
      source.expert_slice(fmt::format("blk.{}.ffn_{}_exps.weight", layer, role), expert);
  check_shape(matrix, {rows, columns}, source.where());
  return matrix;
}

}  // namespace cadre::engine
