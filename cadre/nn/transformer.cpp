#include "cadre/nn/transformer.h"

#include "cadre/base/error.h"
#include "cadre/nn/tensor_check.h"

namespace cadre {
namespace {

using torch::Tensor;

std::vector<TransformerBlock> make_blocks(int64_t count, const AttentionOptions& attention,
                                          const std::shared_ptr<const RotaryTable>& table,
                                          const TokenLayerFactory& make_token_layer) {
  if (count < 1) throw UsageError("a transformer needs at least one layer, got {}", count);
  std::vector<TransformerBlock> blocks;
  for (int64_t layer = 0; layer < count; ++layer) {
    blocks.emplace_back(attention, table, make_token_layer(layer));
  }
  return blocks;
}

torch::nn::ModuleList as_list(const std::vector<TransformerBlock>& blocks) {
  torch::nn::ModuleList list;
  for (const TransformerBlock& block : blocks) list->push_back(block);
  return list;
}

std::shared_ptr<const RotaryTable> make_table(const DecoderOptions& options) {
  const AttentionOptions& attention = options.attention;
  if (attention.heads < 1) {
    throw UsageError("attention needs at least one head, got {}", attention.heads);
  }
  const int64_t dim = attention.head_dim ? attention.head_dim : attention.hidden / attention.heads;
  return std::make_shared<const RotaryTable>(options.max_positions, dim, options.rope_theta);
}

}  // namespace

TransformerBlockImpl::TransformerBlockImpl(const AttentionOptions& attention,
                                           std::shared_ptr<const RotaryTable> table,
                                           std::shared_ptr<TokenLayer> token_layer) {
  if (!token_layer) throw UsageError("a transformer block needs a token layer, got none");
  self_attn = register_module("self_attn", Attention(attention, std::move(table)));
  mlp = register_module("mlp", std::move(token_layer));
  input_layernorm =
      register_module("input_layernorm", RmsNorm(attention.hidden, attention.norm_eps));
  post_attention_layernorm =
      register_module("post_attention_layernorm", RmsNorm(attention.hidden, attention.norm_eps));
}

Tensor TransformerBlockImpl::forward(const Tensor& hidden, const Tensor& positions,
                                     LayerContext& context, KeyValueCache* cache) {
  const Tensor h = hidden + self_attn->forward(input_layernorm->forward(hidden), positions, cache);
  return h + mlp->forward(post_attention_layernorm->forward(h), context);
}

DecoderImpl::DecoderImpl(const DecoderOptions& options, const TokenLayerFactory& make_token_layer)
    : options_(options) {
  const AttentionOptions& attention = options.attention;
  const auto table = make_table(options);
  embed_tokens = register_module(
      "embed_tokens", Embedding(options.vocabulary, attention.hidden, attention.init_std));
  layers = make_blocks(options.layers, attention, table, make_token_layer);
  register_module("layers", as_list(layers));
  norm = register_module("norm", RmsNorm(attention.hidden, attention.norm_eps));
  if (options.head == DecoderOptions::Head::kTied) return;
  lm_head = register_module("lm_head", Linear(LinearOptions{.in = attention.hidden,
                                                            .out = options.vocabulary,
                                                            .init_std = attention.init_std}));
}

Tensor DecoderImpl::forward(LayerContext& context, std::vector<KeyValueCache>* caches) {
  torch::AutoGradMode gradient(torch::GradMode::is_enabled() && caches == nullptr);
  const Tensor positions = positions_of(context, caches);
  Tensor hidden = embed_tokens->forward(context.token_ids);
  for (size_t i = 0; i < layers.size(); ++i) {
    context.layer = static_cast<int64_t>(i);
    hidden = caches ? layers[i]->forward(hidden, positions, context, &(*caches)[i])
                    : run_block(layers[i], options_.activations, hidden, positions, context);
  }
  return norm->forward(hidden);
}

Tensor DecoderImpl::positions_of(const LayerContext& context,
                                 const std::vector<KeyValueCache>* caches) const {
  const Tensor& ids = context.token_ids;
  if (!ids.defined() || ids.dim() != 2) {
    throw UsageError("decoder: token ids {} are not [B, T]", describe(ids));
  }
  if (caches && caches->size() != layers.size()) {
    throw UsageError("decoder: {} caches for {} layers", caches->size(), layers.size());
  }
  const int64_t start = caches ? caches->front().length() : 0;
  const int64_t end = start + ids.size(1);
  if (end > options_.max_positions) {
    throw UsageError("decoder: {} tokens, but the model is made for {}; shorten the text", end,
                     options_.max_positions);
  }
  return torch::arange(start, end, torch::kInt64).expand(ids.sizes()).contiguous();
}

Tensor DecoderImpl::logits(const Tensor& hidden) { return cadre::linear(hidden, output_weight()); }

const Tensor& DecoderImpl::output_weight() const {
  return lm_head ? lm_head->weight : embed_tokens->weight;
}

EncoderImpl::EncoderImpl(int64_t layer_count, const AttentionOptions& attention,
                         const TokenLayerFactory& make_token_layer, Activations activations)
    : activations_(activations) {
  AttentionOptions bidirectional = attention;
  bidirectional.mask = kernels::Mask::kNone;
  layers = make_blocks(layer_count, bidirectional, nullptr, make_token_layer);
  register_module("layers", as_list(layers));
  norm = register_module("norm", RmsNorm(attention.hidden, attention.norm_eps));
}

Tensor EncoderImpl::forward(const Tensor& embedded, LayerContext& context) {
  Tensor hidden = embedded;
  for (size_t i = 0; i < layers.size(); ++i) {
    context.layer = static_cast<int64_t>(i);
    hidden = run_block(layers[i], activations_, hidden, torch::Tensor(), context);
  }
  return norm->forward(hidden);
}

}  // namespace cadre
