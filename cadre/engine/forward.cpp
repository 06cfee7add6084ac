#include "cadre/engine/forward.h"

#include <array>

#include "cadre/engine/vector_math.h"

namespace cadre::engine {
namespace {

constexpr int64_t kTokenGrain = 4;

void grow(std::vector<float>& numbers, int64_t size) {
  if (numbers.size() < static_cast<size_t>(size)) numbers.resize(static_cast<size_t>(size));
}

}  // namespace

Forward::Forward(Team& team, const ModelSpec& spec, const ModelWeights& weights,
                 ExpertProvider& provider)
    : team_(team),
      spec_(spec),
      weights_(weights),
      rope_(spec.rope, weights.rope_factors),
      attention_(team, spec, rope_),
      moe_(team, spec, provider) {
  for (const LayerWeights& layer : weights.layers) {
    routers_.emplace_back(spec.router, spec.experts, layer.selection_bias);
  }
}

void Forward::run(Batch& batch, std::span<const TokenId> tokens, std::span<const int64_t> wanted,
                  const RoutingOverrides& overrides, const LayerListener& listener, float* logits) {
  const int64_t count = batch.tokens;
  grow(x_, count * spec_.hidden);
  grow(branch_, count * spec_.hidden);
  batch.angles.resize(static_cast<size_t>(count * rope_.dimension()));
  for_ranges(team_, count, kTokenGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end && !rope_.is_none(); ++t) {
      rope_.angles(batch.position(t), batch.angles.data() + t * rope_.dimension());
    }
  });
  embed(tokens);
  for (int64_t layer = 0; layer < spec_.layers; ++layer) {
    run_attention(layer, batch);
    run_feed_forward(layer, tokens, overrides, listener);
  }
  write_logits(wanted, logits);
}

void Forward::embed(std::span<const TokenId> tokens) {
  for (size_t t = 0; t < tokens.size(); ++t) {
    float* row = x_.data() + static_cast<int64_t>(t) * spec_.hidden;
    weights_.embedding->read(tokens[t], row);
    if (spec_.embedding_scale != 1.0F) scale(spec_.embedding_scale, spec_.hidden, row);
  }
}

void Forward::normalize(const Norm& norm, int64_t tokens) {
  normal_.resize(tokens, spec_.hidden);
  const float* bias = norm.bias.empty() ? nullptr : norm.bias.data();
  for_ranges(team_, tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* x = x_.data() + t * spec_.hidden;
      if (spec_.norm == NormKind::kRms) {
        rms_norm(x, norm.weight.data(), spec_.norm_eps, spec_.hidden, normal_.row(t));
      } else {
        layer_norm(x, norm.weight.data(), bias, spec_.norm_eps, spec_.hidden, normal_.row(t));
      }
    }
    normal_.quantize(begin, end);
  });
}

void Forward::run_attention(int64_t layer, const Batch& batch) {
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  normalize(weights.attention_norm, batch.tokens);
  attention_.run(layer, weights, normal_, batch, attended_);
  run_products(team_,
               std::array{Product{&weights.output, &attended_, branch_.data(), spec_.hidden}},
               batch.tokens);
  add_residual(branch_.data(), batch.tokens);
}

void Forward::run_feed_forward(int64_t layer, std::span<const TokenId> ids,
                               const RoutingOverrides& overrides, const LayerListener& listener) {
  const auto tokens = static_cast<int64_t>(ids.size());
  const LayerWeights& weights = weights_.layers[static_cast<size_t>(layer)];
  normalize(weights.ffn_norm, tokens);
  if (on_hidden) on_hidden(layer, normal_.row(0), tokens);
  if (spec_.has_experts(layer)) {
    RouteListener of_layer;
    if (listener) {
      of_layer = [&](int64_t row, std::span<const int32_t> experts, std::span<const float> shares) {
        listener(layer, row, experts, shares);
      };
    }
    moe_.run(layer, weights, routers_[static_cast<size_t>(layer)], overrides, of_layer, normal_,
             ids, branch_.data());
  } else {
    moe_.run_dense(weights.dense, normal_, tokens, branch_.data());
  }
  add_residual(branch_.data(), tokens);
}

void Forward::add_residual(const float* branch, int64_t tokens) {
  for_ranges(team_, tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
    add_scaled(spec_.residual_scale, branch + begin * spec_.hidden, (end - begin) * spec_.hidden,
               x_.data() + begin * spec_.hidden);
  });
}

void Forward::write_logits(std::span<const int64_t> wanted, float* logits) {
  const auto count = static_cast<int64_t>(wanted.size());
  for (int64_t i = 0; i < count; ++i) {  // rising: a row moves down only
    const int64_t row = wanted[static_cast<size_t>(i)];
    std::copy_n(x_.data() + row * spec_.hidden, spec_.hidden, x_.data() + i * spec_.hidden);
  }
  normalize(weights_.output_norm, count);
  run_products(team_, std::array{Product{&weights_.output, &normal_, logits, spec_.vocabulary}},
               count);
  if (spec_.logit_scale != 1.0F) scale(spec_.logit_scale, count * spec_.vocabulary, logits);
}

}  // namespace cadre::engine
