#include "cadre/experts/partition.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/experts/attention_experts.h"
#include "cadre/experts/expert_ffn.h"
#include "cadre/experts/expert_mlp.h"
#include "cadre/nn/attention.h"
#include "cadre/nn/feed_forward.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

constexpr int64_t kHidden = 16, kInner = 24, kTokens = 10;

/// All tokens to all experts with weight 1.
Routing everybody(int64_t tokens, int64_t experts) {
  return routing_from_dense(experts, torch::arange(experts).expand({tokens, experts}),
                            torch::ones({tokens, experts}));
}

DenseMlp random_mlp() {
  torch::manual_seed(1);
  return {.up = torch::randn({kInner, kHidden}),
          .up_bias = torch::randn({kInner}),
          .down = torch::randn({kHidden, kInner}),
          .down_bias = torch::randn({kHidden})};
}

DenseSwiGlu random_swiglu() {
  torch::manual_seed(2);
  return {.gate = torch::randn({kInner, kHidden}),
          .up = torch::randn({kInner, kHidden}),
          .down = torch::randn({kHidden, kInner})};
}

DenseAttention random_attention() {
  torch::manual_seed(3);
  const auto normal = [] { return torch::randn({kHidden, kHidden}) * 0.3; };
  return {.q = normal(), .k = normal(), .v = normal(), .o = normal()};
}

class PartitionIn : public ::testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(N, PartitionIn, ::testing::Values(1, 2, 4, 8));

TEST_P(PartitionIn, FuseGivesEveryByteBack) {
  const int64_t n = GetParam();
  const auto mlp = random_mlp(), mlp_back = fuse(partition(mlp, n));
  EXPECT_TRUE(torch::equal(mlp_back.up, mlp.up) && torch::equal(mlp_back.down, mlp.down));
  EXPECT_TRUE(torch::equal(mlp_back.up_bias, mlp.up_bias));
  EXPECT_TRUE(torch::equal(mlp_back.down_bias, mlp.down_bias));
  const auto glu = random_swiglu(), glu_back = fuse(partition(glu, n));
  EXPECT_TRUE(torch::equal(glu_back.gate, glu.gate) && torch::equal(glu_back.up, glu.up));
  EXPECT_TRUE(torch::equal(glu_back.down, glu.down));
  const auto attention = random_attention(), attention_back = fuse(partition(attention, 8, n));
  EXPECT_TRUE(torch::equal(attention_back.q, attention.q));
  EXPECT_TRUE(torch::equal(attention_back.k, attention.k));
  EXPECT_TRUE(torch::equal(attention_back.v, attention.v));
  EXPECT_TRUE(torch::equal(attention_back.o, attention.o));
}

TEST_P(PartitionIn, AllPartsTogetherAreTheDenseMlpAndItsGradients) {
  const int64_t n = GetParam();
  const auto mlp = random_mlp();
  const auto parts = partition(mlp, n);
  ExpertMlp experts({.in = kHidden, .inner = kInner / n, .out = kHidden, .experts = n});
  {
    torch::NoGradGuard no_grad;
    experts.up.copy_(parts.up);
    experts.up_bias.copy_(parts.up_bias);
    experts.down.copy_(parts.down);
    experts.down_bias.zero_();
  }
  const auto routing = everybody(kTokens, n);
  const auto whole = [&](const Tensors& x) {
    return experts.forward(x[0], routing) + parts.down_bias;
  };
  const auto dense = [&](const Tensors& x) {
    const auto wide = [](const torch::Tensor& w) { return w.to(torch::kFloat64); };
    const auto inner = x[0].matmul(wide(mlp.up).t()) + wide(mlp.up_bias);
    return torch::gelu(inner, "tanh").matmul(wide(mlp.down).t()) + wide(mlp.down_bias);
  };
  expect_same_gradients(whole, dense, random_leaves({{kTokens, kHidden}}), 1e-4);
}

TEST_P(PartitionIn, AllPartsTogetherAreTheDenseSwiGlu) {
  const int64_t n = GetParam();
  const auto glu = random_swiglu();
  const auto parts = partition(glu, n);
  const auto x = torch::randn({kTokens, kHidden}) * 0.3;
  expect_close(expert_ffn(x, everybody(kTokens, n), parts.gate, parts.up, parts.down),
               swi_glu(x, glu.gate, glu.up, glu.down), 1e-5);
}

TEST_P(PartitionIn, AllPartsTogetherAreTheDenseAttention) {
  const int64_t n = GetParam(), heads = 8, dim = kHidden / heads;
  for (const auto mask : {kernels::Mask::kNone, kernels::Mask::kCausal}) {
    const auto dense = random_attention();
    const auto parts = partition(dense, heads, n);
    Attention attention(AttentionOptions{.hidden = kHidden, .heads = heads, .mask = mask}, nullptr);
    AttentionExperts experts(
        {.hidden = kHidden, .experts = n, .heads = heads / n, .head_dim = dim, .mask = mask});
    {
      torch::NoGradGuard no_grad;
      attention->q_proj->weight.copy_(dense.q);
      attention->k_proj->weight.copy_(dense.k);
      attention->v_proj->weight.copy_(dense.v);
      attention->o_proj->weight.copy_(dense.o);
      experts.q_proj.copy_(parts.q);
      experts.k_proj.copy_(parts.k);
      experts.v_proj.copy_(parts.v);
      experts.o_proj.copy_(parts.o);
    }
    const auto x = torch::randn({3, kTokens, kHidden}).requires_grad_();
    const auto mix = torch::randn({3, kTokens, kHidden});
    const auto whole = experts.forward(x, everybody(3 * kTokens, n));
    const auto want = attention->forward(x, {});
    expect_close(whole, want, 1e-5);
    expect_close(torch::autograd::grad({(whole * mix).sum()}, {x})[0],
                 torch::autograd::grad({(want * mix).sum()}, {x})[0], 1e-4);
  }
}

TEST(Segment, CutsEveryExpertAndGivesEveryByteBack) {
  torch::manual_seed(4);
  const UnionSwiGlu experts = {.gate = torch::randn({3, 12, kHidden}),
                               .up = torch::randn({3, 12, kHidden}),
                               .down = torch::randn({3, kHidden, 12})};
  const auto fine = segment(experts, 4);
  EXPECT_EQ(fine.gate.sizes(), (std::vector<int64_t>{12, 3, kHidden}));
  const auto back = unsegment(fine, 4);
  EXPECT_TRUE(torch::equal(back.gate, experts.gate) && torch::equal(back.up, experts.up));
  EXPECT_TRUE(torch::equal(back.down, experts.down));

  // One expert's pieces together are that expert.
  const auto x = torch::randn({kTokens, kHidden});
  const auto ids = torch::full({kTokens, 1}, 2);
  const auto coarse = routing_from_dense(3, ids, torch::ones({kTokens, 1}));
  const auto pieces = routing_from_dense(12, ids * 4 + torch::arange(4), torch::ones({kTokens, 4}));
  expect_close(expert_ffn(x, pieces, fine.gate, fine.up, fine.down),
               expert_ffn(x, coarse, experts.gate, experts.up, experts.down), 1e-4);
}

TEST(Partition, WorksWithoutBiasesAndRefusesWhatDoesNotDivide) {
  auto mlp = random_mlp();
  EXPECT_THROW(partition(mlp, 5), UsageError);
  EXPECT_THROW(partition(mlp, 0), UsageError);
  EXPECT_THROW(partition(random_attention(), 4, 8), UsageError);
  EXPECT_THROW(segment({.gate = torch::zeros({2, 5, 4})}, 2), UsageError);
  mlp.up_bias = torch::Tensor();
  EXPECT_FALSE(fuse(partition(mlp, 2)).up_bias.defined());
}

}  // namespace
}  // namespace cadre
