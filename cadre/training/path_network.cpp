#include "cadre/training/path_network.h"

#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/kernels/position_bucket.h"
#include "cadre/nn/embedding.h"
#include "cadre/nn/linear.h"
#include "cadre/nn/norm.h"

namespace cadre {
namespace {

using torch::Tensor;

constexpr double kEpsilon = 1e-6;

void check_options(const PathNetworkOptions& o) {
  const auto check = [](const char* name, int64_t value, int64_t least, int64_t most) {
    if (value < least || value > most)
      throw UsageError("{} is {}, must be from {} to {}", name, value, least, most);
  };
  check("vocabulary", o.vocabulary, 1, int64_t{1} << 24);
  check("layers", o.layers, 1, 4096);
  check("experts", o.experts, 1, 32767);
  check("hidden", o.hidden, 1, 4096);
  check("blocks", o.blocks, 1, 64);
  check("heads", o.heads, 1, 256);
  check("head-width", o.head_width, 1, 1024);
  check("intermediate", o.intermediate, 1, 65536);
  check("buckets", o.buckets, 4, 1024);
  check("max_distance", o.max_distance, o.buckets + 1, 1 << 20);
  if (!(o.dropout >= 0 && o.dropout < 1))
    throw UsageError("dropout is {}, must be from 0 to below 1", o.dropout);
}

}  // namespace

PathNetwork::PathNetwork(const PathNetworkOptions& options, uint64_t seed) : options_(options) {
  check_options(options_);
  torch::manual_seed(seed);
  embeddings_ = add("shared.weight", {options_.vocabulary, options_.hidden}, 1);
  encoder_ = add_stack("encoder", false);
  decoder_ = add_stack("decoder", true);
  // Small: k of E experts are positive, training begins near "none".
  head_ = add("head.weight", {options_.layers * options_.experts, options_.hidden}, 0.02);
}

Tensor PathNetwork::add(const std::string& name, const std::vector<int64_t>& shape,
                        double deviation) {
  Tensor weight = torch::randn(shape).mul_(deviation).requires_grad_();
  weights_.emplace_back(name, weight);
  return weight;
}

Tensor PathNetwork::add_norm(const std::string& name) {
  Tensor weight = torch::ones({options_.hidden}).requires_grad_();
  weights_.emplace_back(name, weight);
  return weight;
}

/// T5's deviations: attention has no 1 / sqrt(head width), q makes up for it.
PathNetwork::Attention PathNetwork::add_attention(const std::string& stem) {
  const int64_t hidden = options_.hidden, inner = options_.heads * options_.head_width;
  const auto of = [](int64_t width) { return 1 / std::sqrt(static_cast<double>(width)); };
  return {.q = add(stem + ".q.weight", {inner, hidden}, of(hidden * options_.head_width)),
          .k = add(stem + ".k.weight", {inner, hidden}, of(hidden)),
          .v = add(stem + ".v.weight", {inner, hidden}, of(hidden)),
          .o = add(stem + ".o.weight", {hidden, inner}, of(inner))};
}

PathNetwork::Stack PathNetwork::add_stack(const std::string& side, bool with_cross) {
  const int64_t hidden = options_.hidden, wide = options_.intermediate;
  Stack stack;
  for (int64_t i = 0; i < options_.blocks; ++i) {
    int64_t part = 0;
    const auto stem = [&] { return fmt::format("{}.block.{}.layer.{}", side, i, part); };
    Block block;
    block.self = add_attention(stem() + ".SelfAttention");
    block.norms.push_back(add_norm(stem() + ".layer_norm.weight"));
    ++part;
    if (with_cross) {
      block.cross = add_attention(stem() + ".EncDecAttention");
      block.norms.push_back(add_norm(stem() + ".layer_norm.weight"));
      ++part;
    }
    block.wi = add(stem() + ".DenseReluDense.wi.weight", {wide, hidden}, 1 / std::sqrt(hidden));
    block.wo = add(stem() + ".DenseReluDense.wo.weight", {hidden, wide}, 1 / std::sqrt(wide));
    block.norms.push_back(add_norm(stem() + ".layer_norm.weight"));
    stack.blocks.push_back(std::move(block));
  }
  stack.bias = add(side + ".block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                   {options_.buckets, options_.heads}, 1 / std::sqrt(hidden));
  stack.norm = add_norm(side + ".final_layer_norm.weight");
  return stack;
}

Tensor PathNetwork::embed(const Tensor& ids, Mode mode) const {
  const Tensor x = cadre::embedding(ids, embeddings_);
  if (mode == Mode::kForecast || options_.dropout == 0) return x;
  return x * torch::rand(ids.sizes()).ge(options_.dropout).unsqueeze(-1);
}

/// [1, heads, T, T]; minus infinity for what a causal one may not see.
Tensor PathNetwork::position_bias(const Stack& stack, int64_t length, bool causal) const {
  std::vector<int64_t> buckets;
  for (int64_t query = 0; query < length; ++query)
    for (int64_t key = 0; key < length; ++key)
      buckets.push_back(
          kernels::position_bucket(key - query, options_.buckets, options_.max_distance, !causal));
  const Tensor bias = cadre::embedding(torch::tensor(buckets).view({length, length}), stack.bias);
  const Tensor by_head = bias.permute({2, 0, 1}).unsqueeze(0);
  if (!causal) return by_head;
  return by_head.masked_fill(torch::ones({length, length}, torch::kBool).triu(1),
                             -std::numeric_limits<float>::infinity());
}

/// x [B, T, D] looks at memory [B, S, D].
Tensor PathNetwork::attend(const Attention& attention, const Tensor& x, const Tensor& memory,
                           const Tensor& bias) const {
  const auto by_head = [&](const Tensor& rows) {
    return rows.view({rows.size(0), rows.size(1), options_.heads, options_.head_width})
        .transpose(1, 2);
  };
  const Tensor q = by_head(cadre::linear(x, attention.q)),
               k = by_head(cadre::linear(memory, attention.k)),
               v = by_head(cadre::linear(memory, attention.v));
  Tensor scores = torch::matmul(q, k.transpose(2, 3));
  if (bias.defined()) scores = scores + bias;
  const Tensor seen = torch::matmul(torch::softmax(scores, -1), v);
  return cadre::linear(seen.transpose(1, 2).reshape({x.size(0), x.size(1), -1}), attention.o);
}

/// A decoder when `encoded` is defined. An empty prompt says nothing.
Tensor PathNetwork::run(const Stack& stack, Tensor x, const Tensor& encoded, bool causal) const {
  const Tensor bias = position_bias(stack, x.size(1), causal);
  for (const Block& block : stack.blocks) {
    const Tensor normed = rms_norm(x, block.norms.front(), kEpsilon);
    x = x + attend(block.self, normed, normed, bias);
    if (encoded.defined() && encoded.size(1) > 0)
      x = x + attend(block.cross, rms_norm(x, block.norms[1], kEpsilon), encoded, {});
    const Tensor last = rms_norm(x, block.norms.back(), kEpsilon);
    x = x + cadre::linear(torch::relu(cadre::linear(last, block.wi)), block.wo);
  }
  return rms_norm(x, stack.norm, kEpsilon);
}

Tensor PathNetwork::logits(const Tensor& prompts, const Tensor& tokens, Mode mode) const {
  Tensor encoded;
  if (prompts.size(1) > 0) encoded = run(encoder_, embed(prompts, mode), {}, false);
  const Tensor decoded = run(decoder_, embed(tokens, mode), encoded, true);
  return cadre::linear(decoded, head_)
      .view({tokens.size(0), tokens.size(1), options_.layers, options_.experts});
}

}  // namespace cadre
