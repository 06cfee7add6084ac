#include "cadre/nn/attention.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

using kernels::Mask;
using torch::Tensor;

Tensor plain_rotary(const Tensor& x, const Tensor& positions, const RotaryTable& table) {
  const Tensor cos = table.cos.index({positions}).unsqueeze(-2).to(x.scalar_type());
  const Tensor sin = table.sin.index({positions}).unsqueeze(-2).to(x.scalar_type());
  const auto halves = x.chunk(2, -1);
  return torch::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

Tensor plain_attention(const Tensor& q, const Tensor& k, const Tensor& v, Mask mask) {
  const int64_t group = q.size(2) / k.size(2);
  const auto by_head = [](const Tensor& x) { return x.transpose(1, 2); };
  const Tensor keys = by_head(k).repeat_interleave(group, 1);
  const Tensor values = by_head(v).repeat_interleave(group, 1);
  Tensor scores = by_head(q).matmul(keys.transpose(2, 3)) / std::sqrt(double(q.size(3)));
  if (mask == Mask::kCausal) {
    const Tensor future =
        torch::ones({q.size(1), k.size(1)}, torch::kBool).triu(k.size(1) - q.size(1) + 1);
    scores = scores.masked_fill(future, -INFINITY);
  }
  return scores.softmax(-1).matmul(values).transpose(1, 2);
}

Tensor positions(int64_t length) { return torch::arange(length, torch::kInt64); }

TEST(Rotary, GradientsMatchPlainTorch) {
  const RotaryTable table(20, 8);
  const Tensor per_sequence = torch::tensor({{3, 0, 19}, {5, 5, 1}}, torch::kInt64);
  for (const Tensor& at : {positions(3), per_sequence}) {
    expect_same_gradients([&](const Tensors& x) { return rotary(x[0], at, table); },
                          [&](const Tensors& x) { return plain_rotary(x[0], at, table); },
                          random_leaves({{2, 3, 4, 8}}));
  }
}

TEST(Rotary, ScoresDependOnDistanceOnly) {
  const RotaryTable table(100, 16);
  const Tensors x = random_leaves({{1, 1, 1, 16}, {1, 1, 1, 16}});
  const auto score = [&](int64_t i, int64_t j) {
    const Tensor q = rotary(x[0], torch::tensor({i}, torch::kInt64), table);
    const Tensor k = rotary(x[1], torch::tensor({j}, torch::kInt64), table);
    return (q * k).sum().item<double>();
  };
  EXPECT_NEAR(score(9, 4), score(95, 90), 1e-4);
  EXPECT_GT(std::abs(score(9, 4) - score(9, 5)), 1e-3);
}

TEST(Rotary, RefusesWhatDoesNotFit) {
  const RotaryTable table(4, 8);
  const Tensor x = torch::zeros({1, 5, 2, 8});
  EXPECT_THROW(rotary(x, positions(5), table), UsageError);
  EXPECT_THROW(rotary(x, positions(4), table), UsageError);
  EXPECT_THROW(rotary(x, Tensor(), table), UsageError);
  EXPECT_THROW(rotary(torch::zeros({1, 4, 2, 6}), positions(4), table), UsageError);
  EXPECT_THROW(RotaryTable(4, 7), UsageError);
  EXPECT_THROW(RotaryTable(0, 8), UsageError);
}

TEST(Attention, GradientsMatchPlainTorch) {
  for (const Mask mask : {Mask::kNone, Mask::kCausal}) {
    for (const int64_t length : {1, 2, 37, 150}) {
      SCOPED_TRACE(length);
      const auto function = [&](auto attend) {
        return [&, attend](const Tensors& x) { return attend(x[0], x[1], x[2], mask); };
      };
      expect_same_gradients(
          function(scaled_dot_product_attention), function(plain_attention),
          random_leaves({{2, length, 4, 8}, {2, length, 2, 8}, {2, length, 2, 8}}));
      expect_same_gradients(
          function(scaled_dot_product_attention), function(plain_attention),
          random_leaves({{1, length, 3, 8}, {1, length + 3, 3, 8}, {1, length + 3, 3, 8}}));
    }
  }
}

TEST(Attention, ReadsViewsWithoutGradient) {
  const torch::NoGradGuard no_grad;
  const Tensor fused = torch::randn({3, 20, 8, 8});
  const Tensor q = fused.slice(1, 4, 11).slice(2, 0, 4), k = fused.slice(1, 0, 13).slice(2, 4, 6),
               v = fused.slice(1, 5, 18).slice(2, 6, 8);
  expect_close(scaled_dot_product_attention(q, k, v, Mask::kCausal),
               plain_attention(q, k, v, Mask::kCausal));
}

TEST(Attention, RefusesWhatDoesNotFit) {
  const Tensor q = torch::zeros({2, 5, 4, 8}), k = torch::zeros({2, 5, 3, 8});
  EXPECT_THROW(scaled_dot_product_attention(q, k, k, Mask::kNone), UsageError);
  EXPECT_THROW(scaled_dot_product_attention(q, q, k, Mask::kNone), UsageError);
  EXPECT_THROW(scaled_dot_product_attention(q, q.slice(1, 0, 4), q.slice(1, 0, 4), Mask::kCausal),
               UsageError);
  EXPECT_THROW(Attention(AttentionOptions{.hidden = 10, .heads = 4}, nullptr), UsageError);
  EXPECT_THROW(Attention(AttentionOptions{.hidden = 8, .heads = 4, .kv_heads = 3}, nullptr),
               UsageError);
  EXPECT_THROW(Attention(AttentionOptions{.hidden = 8, .heads = 0}, nullptr), UsageError);
  EXPECT_THROW(Attention(AttentionOptions{.hidden = 8, .heads = 2},
                         std::make_shared<const RotaryTable>(4, 6)),
               UsageError);
}

TEST(KeyValueCache, KeepsWhatWasAppended) {
  KeyValueCache cache;
  const Tensor all = torch::randn({2, 300, 3, 4});
  for (int64_t begin = 0; begin < 300; begin += 7) {
    const Tensor part = all.slice(1, begin, std::min<int64_t>(begin + 7, 300));
    cache.append(part, 2 * part);
  }
  EXPECT_EQ(cache.length(), 300);
  EXPECT_TRUE(torch::equal(cache.keys(), all));
  EXPECT_TRUE(torch::equal(cache.values(), 2 * all));
  cache.truncate(10);
  EXPECT_TRUE(torch::equal(cache.keys(), all.slice(1, 0, 10)));
  EXPECT_THROW(cache.truncate(11), UsageError);
  EXPECT_THROW(cache.append(torch::zeros({1, 1, 3, 4}), torch::zeros({1, 1, 3, 4})), UsageError);
}

/// The module against its definition in plain torch, for every kind of query-key norm.
TEST(Attention, ModuleGradientsMatchPlainTorch) {
  using QkNorm = AttentionOptions::QkNorm;
  const auto table = std::make_shared<const RotaryTable>(16, 6);
  const Tensor at = torch::stack({positions(9), positions(9) + 7});
  for (const QkNorm qk_norm : {QkNorm::kNone, QkNorm::kFullWidth, QkNorm::kPerHead}) {
    Attention attention(AttentionOptions{.hidden = 10,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .head_dim = 6,
                                         .qk_norm = qk_norm,
                                         .init_std = 0.5},
                        table);
    const auto module = [&](const Tensors& x) {
      attention->q_proj->weight = x[1];
      attention->k_proj->weight = x[2];
      attention->v_proj->weight = x[3];
      attention->o_proj->weight = x[4];
      return attention->forward(x[0], at);
    };
    const auto prepared = [&](const Tensor& x, const Tensor& weight, int64_t heads) {
      Tensor y = torch::linear(x, weight);
      if (qk_norm == QkNorm::kPerHead) y = y.view({2, 9, heads, 6});
      if (qk_norm != QkNorm::kNone) y = y * (y.pow(2).mean(-1, true) + 1e-6).rsqrt();
      return plain_rotary(y.view({2, 9, heads, 6}), at, *table);
    };
    const auto plain = [&](const Tensors& x) {
      const Tensor v = torch::linear(x[0], x[3]).view({2, 9, 2, 6});
      const Tensor mixed =
          plain_attention(prepared(x[0], x[1], 4), prepared(x[0], x[2], 2), v, Mask::kCausal);
      return torch::linear(mixed.reshape({2, 9, 24}), x[4]);
    };
    expect_same_gradients(
        module, plain, random_leaves({{2, 9, 10}, {24, 10}, {12, 10}, {12, 10}, {10, 24}}), 2e-4);
  }
}

TEST(Attention, NamesItsParametersAsCheckpointsDo) {
  const Attention attention(
      AttentionOptions{.hidden = 8, .heads = 2, .qk_norm = AttentionOptions::QkNorm::kFullWidth},
      nullptr);
  EXPECT_EQ(attention->named_parameters().keys(),
            (std::vector<std::string>{"q_proj.weight", "k_proj.weight", "v_proj.weight",
                                      "o_proj.weight", "q_norm.weight", "k_norm.weight"}));
}

}  // namespace
}  // namespace cadre
