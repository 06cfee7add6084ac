#pragma once

/// The network of ExpertFlow's routing path predictor, to be trained here; the engine runs the
/// trained file without torch (cadre/engine/path_predictor.h, which describes the file).
///
/// Paper: "ExpertFlow: Efficient MoE Inference via Predictive Expert Caching and Token Scheduling"
/// (2024): a T5 encoder-decoder (Raffel et al., 2020) of random weights, whose decoder position t
/// forecasts the experts of all layers for token t. The paper's sizes: hidden 32, intermediate
/// 2048, 6 + 6 blocks, 8 heads of 64; the defaults here are those of a model and a text a hundred
/// times smaller. Departure: dropout takes a token's whole embedding, so that the network learns to
/// do without tokens that it will not know.

#include <torch/torch.h>

#include <cstdint>
#include <string>
#include <vector>

#include "cadre/training/tensor_file.h"

namespace cadre {

struct PathNetworkOptions {
  int64_t vocabulary = 0;           ///< V of the model whose routes are forecast
  int64_t layers = 0, experts = 0;  ///< L, E of that model
  int64_t hidden = 32, blocks = 2, heads = 4, head_width = 16, intermediate = 256;
  int64_t buckets = 32, max_distance = 128;
  double dropout = 0.1;
};

class PathNetwork {
 public:
  /// Random weights by the seed. Throws UsageError for sizes out of range.
  PathNetwork(const PathNetworkOptions& options, uint64_t seed);

  enum class Mode { kTraining, kForecast };
  /// Logits [B, T, L, E] for the passes that process tokens [B, T], after prompts [B, P] (P may be
  /// 0). Ids are int64, inside of the vocabulary.
  torch::Tensor logits(const torch::Tensor& prompts, const torch::Tensor& tokens, Mode mode) const;

  const PathNetworkOptions& options() const { return options_; }
  /// Under the names of the engine's file: not copies.
  const NamedTensors& weights() const { return weights_; }
  /// The embeddings [V, D], one of weights().
  torch::Tensor embeddings() const { return embeddings_; }

 private:
  struct Attention {
    torch::Tensor q, k, v, o;
  };
  struct Block {
    Attention self, cross;  ///< no cross in the encoder
    torch::Tensor wi, wo;
    std::vector<torch::Tensor> norms;  ///< one before each part
  };
  struct Stack {
    std::vector<Block> blocks;
    torch::Tensor bias, norm;  ///< bias [buckets, heads] by relative position, of all blocks
  };

  torch::Tensor add(const std::string& name, const std::vector<int64_t>& shape, double deviation);
  torch::Tensor add_norm(const std::string& name);
  Attention add_attention(const std::string& stem);
  Stack add_stack(const std::string& side, bool with_cross);
  torch::Tensor embed(const torch::Tensor& ids, Mode mode) const;
  torch::Tensor attend(const Attention& attention, const torch::Tensor& x,
                       const torch::Tensor& memory, const torch::Tensor& bias) const;
  torch::Tensor position_bias(const Stack& stack, int64_t length, bool causal) const;
  torch::Tensor run(const Stack& stack, torch::Tensor x, const torch::Tensor& encoded,
                    bool causal) const;

  PathNetworkOptions options_;
  NamedTensors weights_;
  torch::Tensor embeddings_, head_;
  Stack encoder_, decoder_;
};

}  // namespace cadre
