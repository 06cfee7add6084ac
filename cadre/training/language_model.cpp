#include "cadre/training/language_model.h"

#include <fmt/format.h>

#include "cadre/base/error.h"
#include "cadre/objectives/balance_forms.h"
#include "cadre/objectives/consistency.h"
#include "cadre/objectives/cross_entropy.h"
#include "cadre/objectives/objectives.h"

namespace cadre {
namespace {

BalanceForm balance_form_of(const RouterConfig& router) {
  return router.is_standard() ? BalanceForm::kShare : router_kind_named(router.kind).balance;
}

std::vector<RoutingObjective> objectives_of(const ModelConfig& config) {
  std::vector<RoutingObjective> objectives;
  if (config.balance_coefficient > 0) {
    const auto scope = config.balance_per_sequence ? BalanceScope::kSequence : BalanceScope::kBatch;
    const auto balance =
        balance_of(balance_form_of(config.router), config.balance_coefficient, scope);
    if (balance) objectives.push_back(*balance);
  }
  if (config.z_loss_coefficient > 0) objectives.push_back(z_loss(config.z_loss_coefficient));
  for (const auto& [name, coefficient] : config.objectives) {
    objectives.push_back(make_objective(name, coefficient));
  }
  return objectives;
}

/// Null for the architecture's own top-k, which an expert layer makes itself.
std::shared_ptr<ExpertLayer> make_expert_layer(const ModelConfig& config,
                                               std::shared_ptr<Router> router) {
  const ExpertLayerOptions options = {
      .hidden = config.hidden,
      .inner = config.expert_intermediate,
      .experts = config.experts,
      .shared_inner = config.shared_experts * config.expert_intermediate,
      .router = {.k = config.experts_per_token,
                 .weights = config.normalize_expert_weights ? Weights::kNormalized : Weights::kRaw,
                 .init_std = config.init_std},
      .objectives = objectives_of(config),
      .init_std = config.init_std};
  return std::make_shared<ExpertLayer>(options, std::move(router));
}

DecoderOptions decoder_options(const ModelConfig& config, Activations activations) {
  return {
      .vocabulary = config.vocabulary,
      .layers = config.layers,
      .max_positions = config.max_positions,
      .rope_theta = config.rope_theta,
      .head =
          config.tied_embeddings ? DecoderOptions::Head::kTied : DecoderOptions::Head::kSeparate,
      .activations = activations,
      .attention = {.hidden = config.hidden,
                    .heads = config.heads,
                    .kv_heads = config.kv_heads,
                    .head_dim = config.head_width(),
                    .qk_norm = config.architecture == Architecture::kOlmoe
                                   ? AttentionOptions::QkNorm::kFullWidth
                                   : AttentionOptions::QkNorm::kNone,
                    .norm_eps = config.norm_eps,
                    .init_std = config.init_std},
  };
}

void add_swiglu(NamedTensors& weights, const std::string& prefix, const SwiGlu& layer) {
  weights.emplace_back(prefix + "gate_proj.weight", layer.gate_proj->weight);
  weights.emplace_back(prefix + "up_proj.weight", layer.up_proj->weight);
  weights.emplace_back(prefix + "down_proj.weight", layer.down_proj->weight);
}

void add_attention(NamedTensors& weights, const std::string& prefix, AttentionImpl& attention) {
  weights.emplace_back(prefix + "q_proj.weight", attention.q_proj->weight);
  weights.emplace_back(prefix + "k_proj.weight", attention.k_proj->weight);
  weights.emplace_back(prefix + "v_proj.weight", attention.v_proj->weight);
  weights.emplace_back(prefix + "o_proj.weight", attention.o_proj->weight);
  if (attention.q_norm.is_empty()) return;
  weights.emplace_back(prefix + "q_norm.weight", attention.q_norm->weight);
  weights.emplace_back(prefix + "k_norm.weight", attention.k_norm->weight);
}

void add_router(NamedTensors& weights, const std::string& prefix, const Router& router,
                const ModelConfig& config, int64_t index) {
  if (config.router.is_standard()) {
    weights.emplace_back(prefix + "weight", dynamic_cast<const TopKRouter&>(router).weight);
    return;
  }
  for (const auto& [name, tensor] :
       checkpoint_tensors(router, config.router, config.router_shape(), index)) {
    weights.emplace_back(prefix + name, tensor);
  }
}

void add_experts(NamedTensors& weights, const std::string& prefix, const ExpertLayer& layer) {
  for (int64_t expert = 0; expert < layer.options().experts; ++expert) {
    const std::string name = fmt::format("{}experts.{}.", prefix, expert);
    weights.emplace_back(name + "gate_proj.weight", layer.gate_proj.select(0, expert));
    weights.emplace_back(name + "up_proj.weight", layer.up_proj.select(0, expert));
    weights.emplace_back(name + "down_proj.weight", layer.down_proj.select(0, expert));
  }
  if (layer.shared_experts) add_swiglu(weights, prefix + "shared_experts.", *layer.shared_experts);
}

void add_auxiliary(const LayerContext& context, LossParts& parts) {
  for (const AuxLoss& aux : context.aux) {
    parts.total = parts.total + aux.value;
    parts.aux.push_back({aux.name, aux.value.detach()});
  }
}

/// While it lives, layers whose router looks ahead use a top-k over the same matrix instead: what
/// decoding needs.
class DecodingRouters {
 public:
  using Layers = std::vector<std::pair<int64_t, std::shared_ptr<ExpertLayer>>>;

  DecodingRouters(const ModelConfig& config, const Layers& layers) {
    for (const auto& [index, layer] : layers) {
      if (layer->gate->causal()) continue;
      replaced_.emplace_back(layer, layer->gate);
      layer->gate = fallback_of(config, *layer->gate);
    }
  }
  ~DecodingRouters() {
    for (auto& [layer, gate] : replaced_) layer->gate = std::move(gate);
  }
  DecodingRouters(const DecodingRouters&) = delete;
  DecodingRouters& operator=(const DecodingRouters&) = delete;

 private:
  static std::shared_ptr<Router> fallback_of(const ModelConfig& config, const Router& router) {
    check_decoding(config.router);
    const auto parameters = router.named_parameters();
    const torch::Tensor* weight = parameters.find("weight");
    auto top_k = std::make_shared<TopKRouter>(config.hidden, config.experts,
                                              TopK{.k = config.experts_per_token});
    if (!weight || weight->sizes() != top_k->weight.sizes()) {
      throw UsageError("router {}: has no matrix over single tokens to fall back on",
                       config.router.kind);
    }
    top_k->weight = *weight;
    return top_k;
  }

  std::vector<std::pair<std::shared_ptr<ExpertLayer>, std::shared_ptr<Router>>> replaced_;
};

}  // namespace

LanguageModel::LanguageModel(const ModelConfig& config, uint64_t seed, Activations activations)
    : config_(config), seed_(seed) {
  config_.validate();
  torch::manual_seed(seed);
  Routers routers(config_.expert_layers());
  if (!config_.router.is_standard()) routers = make_routers(config_.router, config_.router_shape());
  const auto make_token_layer = [&](int64_t layer) -> std::shared_ptr<TokenLayer> {
    if (config_.is_dense_layer(layer)) {
      return std::make_shared<SwiGlu>(config_.hidden, config_.intermediate, config_.init_std);
    }
    auto& router = routers[expert_layers_.size()];
    expert_layers_.emplace_back(layer, make_expert_layer(config_, std::move(router)));
    return expert_layers_.back().second;
  };
  decoder_ = Decoder(decoder_options(config_, activations), make_token_layer);
}

LayerContext LanguageModel::training_context(const torch::Tensor& inputs, int64_t step,
                                             int64_t total_steps, int64_t draw) const {
  LayerContext context;
  context.step = step;
  context.total_steps = total_steps;
  context.seed = seed_;
  context.draw = draw;
  context.token_ids = inputs;
  return context;
}

LossParts LanguageModel::loss(const torch::Tensor& inputs, const torch::Tensor& targets,
                              int64_t step, int64_t total_steps) {
  decoder_->train();
  LayerContext context = training_context(inputs, step, total_steps, 0);
  const torch::Tensor hidden = decoder_->forward(context);
  LossParts parts;
  parts.total = chunked_cross_entropy(hidden, decoder_->output_weight(), targets);
  parts.cross_entropy = parts.total.item<double>();
  add_auxiliary(context, parts);
  return parts;
}

LossParts LanguageModel::consistent_loss(const torch::Tensor& inputs, const torch::Tensor& targets,
                                         int64_t step, int64_t total_steps, double coefficient) {
  decoder_->train();
  LayerContext first = training_context(inputs, step, total_steps, 0);
  LayerContext second = training_context(inputs, step, total_steps, 1);
  const torch::Tensor a = decoder_->forward(first), b = decoder_->forward(second);
  const ConsistencyParts both =
      chunked_consistency(a, b, decoder_->output_weight(), targets, {.coefficient = coefficient});
  LossParts parts{.total = both.total, .cross_entropy = both.cross_entropy};
  parts.aux.push_back({"consistency", torch::full({}, coefficient * both.divergence)});
  for (const LayerContext& context : {first, second}) add_auxiliary(context, parts);
  return parts;
}

torch::Tensor LanguageModel::evaluate(const torch::Tensor& inputs, const torch::Tensor& targets) {
  const torch::NoGradGuard no_grad;
  return token_losses(hidden_states(inputs), decoder_->output_weight(), targets);
}

torch::Tensor LanguageModel::logits(const torch::Tensor& ids, std::vector<KeyValueCache>* caches) {
  const torch::NoGradGuard no_grad;
  return decoder_->logits(hidden_states(ids, caches));
}

torch::Tensor LanguageModel::next_logits(const torch::Tensor& ids,
                                         std::vector<KeyValueCache>* caches) {
  const torch::NoGradGuard no_grad;
  return decoder_->logits(hidden_states(ids, caches).select(1, -1).contiguous());
}

torch::Tensor LanguageModel::hidden_states(const torch::Tensor& ids,
                                           std::vector<KeyValueCache>* caches) {
  const torch::NoGradGuard no_grad;
  decoder_->eval();
  LayerContext context;
  context.seed = seed_;
  context.token_ids = ids;
  if (!caches) return decoder_->forward(context);
  const DecodingRouters routers(config_, expert_layers_);
  return decoder_->forward(context, caches);
}

NamedTensors LanguageModel::named_weights() {
  NamedTensors weights;
  weights.emplace_back("model.embed_tokens.weight", decoder_->embed_tokens->weight);
  for (int64_t index = 0; index < config_.layers; ++index) {
    TransformerBlock& block = decoder_->layers[index];
    const std::string prefix = fmt::format("model.layers.{}.", index);
    weights.emplace_back(prefix + "input_layernorm.weight", block->input_layernorm->weight);
    add_attention(weights, prefix + "self_attn.", *block->self_attn);
    weights.emplace_back(prefix + "post_attention_layernorm.weight",
                         block->post_attention_layernorm->weight);
    if (const auto experts = std::dynamic_pointer_cast<ExpertLayer>(block->mlp)) {
      add_router(weights, prefix + "mlp.gate.", *experts->gate, config_,
                 index - config_.first_dense_layers);
      add_experts(weights, prefix + "mlp.", *experts);
    } else {
      add_swiglu(weights, prefix + "mlp.", *std::static_pointer_cast<SwiGlu>(block->mlp));
    }
  }
  weights.emplace_back("model.norm.weight", decoder_->norm->weight);
  if (!config_.tied_embeddings) weights.emplace_back("lm_head.weight", decoder_->lm_head->weight);
  for (auto& [name, weight] : weights) weight = weight.detach();
  return weights;
}

}  // namespace cadre
