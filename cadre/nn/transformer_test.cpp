#include "cadre/nn/transformer.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

using torch::Tensor;

constexpr int64_t kVocabulary = 17, kHidden = 12;

AttentionOptions attention_options() {
  return {.hidden = kHidden,
          .heads = 3,
          .kv_heads = 1,
          .qk_norm = AttentionOptions::QkNorm::kFullWidth,
          .init_std = 0.4};
}

TokenLayerFactory swi_glus() {
  return [](int64_t) { return std::make_shared<SwiGlu>(kHidden, 20, 0.4); };
}

DecoderOptions decoder_options() {
  return {.vocabulary = kVocabulary,
          .layers = 3,
          .max_positions = 40,
          .attention = attention_options()};
}

Decoder make_decoder(const DecoderOptions& options, const TokenLayerFactory& factory = swi_glus()) {
  torch::manual_seed(7);
  return Decoder(options, factory);
}

Tensor random_ids(int64_t batch, int64_t length) {
  return torch::randint(kVocabulary, {batch, length}, torch::kInt64);
}

Tensor hidden_of(Decoder& decoder, const Tensor& ids,
                 std::vector<KeyValueCache>* caches = nullptr) {
  LayerContext context{.token_ids = ids};
  return decoder->forward(context, caches);
}

TEST(Decoder, ALaterTokenChangesNothingBefore) {
  Decoder decoder = make_decoder(decoder_options());
  const torch::NoGradGuard no_grad;
  const Tensor ids = random_ids(2, 9);
  Tensor changed = ids.clone();
  changed.select(1, 6).add_(1).remainder_(kVocabulary);
  const Tensor a = hidden_of(decoder, ids), b = hidden_of(decoder, changed);
  EXPECT_TRUE(torch::equal(a.slice(1, 0, 6), b.slice(1, 0, 6)));
  EXPECT_FALSE(torch::allclose(a.slice(1, 6), b.slice(1, 6)));
}

TEST(Decoder, GenerationWithCacheMatchesFullForward) {
  Decoder decoder = make_decoder(decoder_options());
  const Tensor ids = random_ids(2, 20);
  std::vector<KeyValueCache> caches(3);
  Tensors parts = {hidden_of(decoder, ids.slice(1, 0, 7), &caches),
                   hidden_of(decoder, ids.slice(1, 7, 12), &caches)};
  for (int64_t t = 12; t < 20; ++t) {
    parts.push_back(hidden_of(decoder, ids.slice(1, t, t + 1), &caches));
  }
  EXPECT_FALSE(parts[0].requires_grad());
  expect_close(torch::cat(parts, 1), hidden_of(decoder, ids));
}

TEST(Decoder, HeadIsTheEmbeddingOrItsOwn) {
  DecoderOptions options = decoder_options();
  Decoder tied = make_decoder(options);
  EXPECT_TRUE(tied->output_weight().is_same(tied->embed_tokens->weight));
  EXPECT_FALSE(tied->named_parameters().contains("lm_head.weight"));
  options.head = DecoderOptions::Head::kSeparate;
  Decoder separate = make_decoder(options);
  const Tensor weight = separate->named_parameters()["lm_head.weight"];
  const Tensor hidden = hidden_of(separate, random_ids(1, 1));
  expect_close(separate->logits(hidden), torch::linear(hidden, weight));
}

TEST(Decoder, NamesItsParametersAsCheckpointsDo) {
  DecoderOptions options = decoder_options();
  options.layers = 1;
  EXPECT_EQ(make_decoder(options)->named_parameters().keys(),
            (std::vector<std::string>{
                "embed_tokens.weight", "layers.0.self_attn.q_proj.weight",
                "layers.0.self_attn.k_proj.weight", "layers.0.self_attn.v_proj.weight",
                "layers.0.self_attn.o_proj.weight", "layers.0.self_attn.q_norm.weight",
                "layers.0.self_attn.k_norm.weight", "layers.0.mlp.gate_proj.weight",
                "layers.0.mlp.up_proj.weight", "layers.0.mlp.down_proj.weight",
                "layers.0.input_layernorm.weight", "layers.0.post_attention_layernorm.weight",
                "norm.weight"}));
}

TEST(Decoder, RefusesWhatDoesNotFit) {
  Decoder decoder = make_decoder(decoder_options());
  EXPECT_THROW(hidden_of(decoder, random_ids(1, 41)), UsageError);
  EXPECT_THROW(hidden_of(decoder, torch::full({1, 3}, kVocabulary, torch::kInt64)), UsageError);
  EXPECT_THROW(hidden_of(decoder, torch::zeros({3}, torch::kInt64)), UsageError);
  EXPECT_THROW(hidden_of(decoder, Tensor()), UsageError);
  std::vector<KeyValueCache> too_few(2), caches(3);
  EXPECT_THROW(hidden_of(decoder, random_ids(1, 3), &too_few), UsageError);
  hidden_of(decoder, random_ids(1, 40), &caches);
  EXPECT_THROW(hidden_of(decoder, random_ids(1, 1), &caches), UsageError);
  DecoderOptions none = decoder_options();
  none.layers = 0;
  EXPECT_THROW(make_decoder(none), UsageError);
}

/// One block's gradients by central differences along random directions: nothing here knows its
/// formula.
TEST(TransformerBlock, GradientMatchesFiniteDifferences) {
  torch::manual_seed(3);
  TransformerBlock block(attention_options(), std::make_shared<const RotaryTable>(8, 4),
                         swi_glus()(0));
  const Tensor positions = torch::arange(5, torch::kInt64);
  const Tensor x = torch::randn({2, 5, kHidden}).requires_grad_(),
               dy = torch::randn({2, 5, kHidden});
  const auto value = [&] {
    LayerContext context;
    return (block->forward(x, positions, context).to(torch::kFloat64) * dy).sum();
  };
  Tensors leaves = block->parameters();
  leaves.push_back(x);
  const Tensors grads = torch::autograd::grad({value()}, leaves);
  const torch::NoGradGuard no_grad;
  constexpr double kStep = 3e-3;
  for (size_t i = 0; i < leaves.size(); ++i) {
    SCOPED_TRACE(i);
    const Tensor direction = torch::randn_like(leaves[i]) / std::sqrt(leaves[i].numel());
    const Tensor start = leaves[i].clone();
    leaves[i].copy_(start + kStep * direction);
    const double above = value().item<double>();
    leaves[i].copy_(start - kStep * direction);
    const double below = value().item<double>();
    leaves[i].copy_(start);
    const double expected = (grads[i] * direction).sum().item<double>();
    EXPECT_NEAR((above - below) / (2 * kStep), expected, 2e-3 * (1 + std::abs(expected)));
  }
}

/// A token layer with all that flows beside the hidden states: a carried state, a loss, torch's
/// randomness.
class Chatty : public TokenLayer {
 public:
  Chatty() {
    scale_ = register_parameter("scale", torch::randn({kHidden}));
    inner_ = register_module("inner", std::make_shared<SwiGlu>(kHidden, 20, 0.4));
  }

  Tensor forward(const Tensor& hidden, LayerContext& context) override {
    runs[static_cast<int>(context.pass)] += 1;
    Tensor state = hidden.reshape({-1, kHidden}) * scale_;
    if (context.router_state.defined()) state = state + context.router_state.tanh();
    if (context.layer != 1) context.router_state = state;  // layer 1 hands the state on as it is
    context.aux.push_back({fmt::format("chat/{}", context.layer), 0.1 * state.pow(2).mean()});
    const Tensor noise = 0.1 * torch::randn(hidden.sizes());
    return inner_->forward(hidden + noise) + state.view(hidden.sizes());
  }

  int runs[2] = {};

 private:
  Tensor scale_;
  std::shared_ptr<SwiGlu> inner_;
};

struct StepResult {
  Tensor hidden, state;
  std::vector<AuxLoss> aux;
  Tensors grads;
  std::vector<std::shared_ptr<Chatty>> layers;
};

StepResult step(Activations activations) {
  StepResult result;
  DecoderOptions options = decoder_options();
  options.activations = activations;
  Decoder decoder = make_decoder(options, [&](int64_t) {
    result.layers.push_back(std::make_shared<Chatty>());
    return result.layers.back();
  });
  torch::manual_seed(11);
  LayerContext context{.token_ids = random_ids(2, 6)};
  result.hidden = decoder->forward(context);
  Tensor loss = result.hidden.pow(3).mean() + context.router_state.sum();
  for (const AuxLoss& aux : context.aux) loss = loss + aux.value;
  loss.backward();
  result.state = context.router_state;
  result.aux = context.aux;
  for (const Tensor& x : decoder->parameters()) result.grads.push_back(x.grad());
  return result;
}

TEST(Recompute, GivesTheSameBitsAsKeeping) {
  const StepResult kept = step(Activations::kKeep), again = step(Activations::kRecompute);
  EXPECT_TRUE(torch::equal(kept.hidden, again.hidden));
  EXPECT_TRUE(torch::equal(kept.state, again.state));
  ASSERT_EQ(kept.aux.size(), 3u);
  ASSERT_EQ(again.aux.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(kept.aux[i].name, again.aux[i].name);
    EXPECT_TRUE(torch::equal(kept.aux[i].value, again.aux[i].value));
  }
  for (size_t i = 0; i < kept.grads.size(); ++i) {
    SCOPED_TRACE(i);
    ASSERT_TRUE(kept.grads[i].defined());
    EXPECT_GT(kept.grads[i].abs().max().item<float>(), 0);
    EXPECT_TRUE(torch::equal(kept.grads[i], again.grads[i]));
  }
}

TEST(Recompute, RunsEachBlockOnceMoreAndSaysSo) {
  const StepResult kept = step(Activations::kKeep), again = step(Activations::kRecompute);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(kept.layers[i]->runs[0], 1);
    EXPECT_EQ(kept.layers[i]->runs[1], 0);
    EXPECT_EQ(again.layers[i]->runs[0], 1);
    EXPECT_EQ(again.layers[i]->runs[1], 1);
  }
}

TEST(Encoder, SeesBothDirectionsAndForgetsOrder) {
  torch::manual_seed(2);
  AttentionOptions options = attention_options();
  Encoder encoder(2, options, swi_glus(), Activations::kRecompute);
  const Tensor x = torch::randn({1, 6, kHidden}).requires_grad_();
  LayerContext context;
  const Tensor y = encoder->forward(x, context);
  y.select(1, 0).sum().backward();
  EXPECT_GT(x.grad().select(1, 5).abs().max().item<float>(), 0);
  expect_close(encoder->forward(x.flip(1), context), y.flip(1));
  EXPECT_TRUE(encoder->named_parameters().contains("layers.1.mlp.down_proj.weight"));
}

}  // namespace
}  // namespace cadre
