#pragma once

/// Pre-norm transformer blocks and stacks whose token-wise part is any TokenLayer.

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <vector>

#include "cadre/nn/attention.h"
#include "cadre/nn/embedding.h"
#include "cadre/nn/feed_forward.h"
#include "cadre/nn/norm.h"

namespace cadre {

/// Makes the token-wise part of block `layer`.
using TokenLayerFactory = std::function<std::shared_ptr<TokenLayer>(int64_t layer)>;

/// h = x + attention(norm(x)); y = h + token_layer(norm(h)).
/// Modules: self_attn, mlp, input_layernorm, post_attention_layernorm.
class TransformerBlockImpl : public torch::nn::Module {
 public:
  TransformerBlockImpl(const AttentionOptions& attention, std::shared_ptr<const RotaryTable> table,
                       std::shared_ptr<TokenLayer> token_layer);
  torch::Tensor forward(const torch::Tensor& hidden, const torch::Tensor& positions,
                        LayerContext& context, KeyValueCache* cache = nullptr);

  RmsNorm input_layernorm{nullptr}, post_attention_layernorm{nullptr};
  Attention self_attn{nullptr};
  std::shared_ptr<TokenLayer> mlp;
};
TORCH_MODULE(TransformerBlock);

/// Whether a block's activations are kept for backward or computed again
/// (Chen et al., "Training Deep Nets with Sublinear Memory Cost", 2016). Same gradients, bit for
/// bit.
enum class Activations { kKeep, kRecompute };

/// Runs a block of a stack. With kRecompute only its inputs are kept: backward runs it a second
/// time, with context.pass = kRecompute and torch's generator as it stood.
torch::Tensor run_block(TransformerBlock& block, Activations activations,
                        const torch::Tensor& hidden, const torch::Tensor& positions,
                        LayerContext& context);

struct DecoderOptions {
  int64_t vocabulary;
  int64_t layers;
  int64_t max_positions = 2048;
  double rope_theta = 10000.0;
  enum class Head {
    kSeparate,
    kTied
  } head = Head::kTied;  ///< output matrix of its own, or the embedding's
  Activations activations = Activations::kKeep;
  AttentionOptions attention;  ///< hidden lives here
};

/// A decoder language model: embedding, blocks, final norm, output matrix.
/// Modules: embed_tokens, layers.N, norm; parameter lm_head.weight when separate.
class DecoderImpl : public torch::nn::Module {
 public:
  DecoderImpl(const DecoderOptions& options, const TokenLayerFactory& make_token_layer);

  /// Final hidden states [B, T, D] of context.token_ids. `caches` (one per layer) for generation:
  /// then tokens continue at the caches' length, without gradient. Throws UsageError beyond
  /// max_positions or for ids outside the vocabulary.
  torch::Tensor forward(LayerContext& context, std::vector<KeyValueCache>* caches = nullptr);
  /// Logits [..., V] of hidden states [..., D].
  torch::Tensor logits(const torch::Tensor& hidden);
  /// The output matrix [V, D] (the embedding's when tied), for chunked losses.
  const torch::Tensor& output_weight() const;

  const DecoderOptions& options() const { return options_; }
  Embedding embed_tokens{nullptr};
  std::vector<TransformerBlock> layers;
  RmsNorm norm{nullptr};
  Linear lm_head{nullptr};

 private:
  torch::Tensor positions_of(const LayerContext& context,
                             const std::vector<KeyValueCache>* caches) const;

  DecoderOptions options_;
};
TORCH_MODULE(Decoder);

/// An encoder over ready embeddings [B, T, D] (text, patches, columns): bidirectional blocks and a
/// final norm. Padded tokens are attended to like others: leave them out, or give equal lengths.
/// Modules: layers.N, norm.
class EncoderImpl : public torch::nn::Module {
 public:
  EncoderImpl(int64_t layers, const AttentionOptions& attention,
              const TokenLayerFactory& make_token_layer,
              Activations activations = Activations::kKeep);
  torch::Tensor forward(const torch::Tensor& embedded, LayerContext& context);

  std::vector<TransformerBlock> layers;
  RmsNorm norm{nullptr};

 private:
  Activations activations_;
};
TORCH_MODULE(Encoder);

}  // namespace cadre
