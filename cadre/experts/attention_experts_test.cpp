#include "cadre/experts/attention_experts.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

constexpr int64_t kHidden = 8, kExperts = 3, kHeads = 2, kDim = 4, kTokens = 7;

std::shared_ptr<AttentionExperts> make_experts(kernels::Mask mask = kernels::Mask::kNone) {
  torch::manual_seed(1);
  return std::make_shared<AttentionExperts>(AttentionExpertsOptions{.hidden = kHidden,
                                                                    .experts = kExperts,
                                                                    .heads = kHeads,
                                                                    .head_dim = kDim,
                                                                    .mask = mask,
                                                                    .init_std = 0.5});
}

/// Pairs by chance: chosen [tokens, E] with random weights.
Routing random_routing(int64_t tokens, uint64_t seed, const torch::Tensor& weights) {
  torch::manual_seed(seed);
  const auto chosen = torch::rand({tokens, kExperts}) < 0.5;
  const auto ids = torch::where(chosen, torch::arange(kExperts), torch::full({}, kExperts));
  return routing_from_dense(kExperts, ids, weights);
}

/// Token by token, expert by expert, in double.
torch::Tensor reference(const AttentionExperts& experts, const torch::Tensor& x,
                        const Routing& routing) {
  const int64_t batch = x.size(0), tokens = x.size(1);
  std::vector<torch::Tensor> y;
  for (int64_t t = 0; t < batch * tokens; ++t)
    y.push_back(torch::zeros({kHidden}, torch::kFloat64));
  const auto flat = x.reshape({-1, kHidden});
  const int64_t* offset = routing.offsets.data_ptr<int64_t>();
  const auto pair_of = [&](int64_t t, int64_t e) -> int64_t {
    for (int64_t p = offset[t]; p < offset[t + 1]; ++p) {
      if (routing.expert[p].item<int64_t>() == e) return p;
    }
    return -1;
  };
  const auto part = [&](const torch::Tensor& w, int64_t e, int64_t head, int64_t t) {
    return w[e].narrow(0, head * kDim, kDim).to(torch::kFloat64).matmul(flat[t]);
  };
  for (int64_t e = 0; e < kExperts; ++e) {
    for (int64_t t = 0; t < batch * tokens; ++t) {
      if (pair_of(t, e) < 0) continue;
      std::vector<torch::Tensor> heads;
      for (int64_t head = 0; head < kHeads; ++head) {
        std::vector<torch::Tensor> scores, values;
        for (int64_t s = t / tokens * tokens; s < (t / tokens + 1) * tokens; ++s) {
          const bool late = experts.options().mask == kernels::Mask::kCausal && s > t;
          if (late || pair_of(s, e) < 0) continue;
          scores.push_back(part(experts.q_proj, e, head, t).dot(part(experts.k_proj, e, head, s)) /
                           std::sqrt(static_cast<double>(kDim)));
          values.push_back(part(experts.v_proj, e, head, s));
        }
        heads.push_back(torch::softmax(torch::stack(scores), 0).matmul(torch::stack(values)));
      }
      y[t] = y[t] + routing.weight[pair_of(t, e)] *
                        experts.o_proj[e].to(torch::kFloat64).matmul(torch::cat(heads));
    }
  }
  return torch::stack(y).view(x.sizes());
}

TEST(AttentionExperts, EqualsTheReferenceAndItsGradients) {
  for (const auto mask : {kernels::Mask::kNone, kernels::Mask::kCausal}) {
    const auto experts = make_experts(mask);
    const auto ours = [&](const Tensors& x) {
      return experts->forward(x[0], random_routing(2 * kTokens, 5, x[1]));
    };
    const auto theirs = [&](const Tensors& x) {
      Routing routing = random_routing(2 * kTokens, 5, x[1]);
      return reference(*experts, x[0], routing);
    };
    expect_same_gradients(ours, theirs,
                          random_leaves({{2, kTokens, kHidden}, {2 * kTokens, kExperts}}), 1e-4);
  }
}

TEST(AttentionExperts, GradientsReachTheProjections) {
  const auto experts = make_experts();
  const auto x = torch::randn({2, kTokens, kHidden});
  const auto routing = random_routing(2 * kTokens, 5, torch::rand({2 * kTokens, kExperts}));
  const auto mix = torch::randn({2, kTokens, kHidden});
  const Tensors weights = {experts->q_proj, experts->k_proj, experts->v_proj, experts->o_proj};
  const auto grads = torch::autograd::grad({(experts->forward(x, routing) * mix).sum()}, weights);
  const auto want = torch::autograd::grad(
      {(reference(*experts, x.to(torch::kFloat64), routing) * mix).sum()}, weights);
  for (size_t i = 0; i < grads.size(); ++i) expect_close(grads[i], want[i], 1e-4);
}

TEST(AttentionExperts, CausalWithTokenChoiceNeverSeesTheFuture) {
  const auto experts = make_experts(kernels::Mask::kCausal);
  const auto routing = random_routing(kTokens, 5, torch::ones({kTokens, kExperts}));
  auto x = torch::randn({1, kTokens, kHidden});
  const auto before = experts->forward(x, routing);
  x[0][kTokens - 1] += 3;
  const auto after = experts->forward(x, routing);
  EXPECT_TRUE(torch::equal(before.narrow(1, 0, kTokens - 1), after.narrow(1, 0, kTokens - 1)));
}

TEST(AttentionExperts, DegenerateRoutings) {
  const auto experts = make_experts();
  const auto x = torch::randn({2, kTokens, kHidden}).requires_grad_();
  const auto nobody = routing_from_dense(kExperts, torch::full({2 * kTokens, 1}, kExperts),
                                         torch::ones({2 * kTokens, 1}));
  const auto nothing = experts->forward(x, nobody);
  EXPECT_TRUE(torch::equal(nothing, torch::zeros_like(nothing)));
  nothing.sum().backward();
  // One token alone attends to itself: its own value.
  auto ids = torch::full({2 * kTokens, 1}, kExperts);
  ids[9][0] = 1;
  const auto one = routing_from_dense(kExperts, ids, torch::ones({2 * kTokens, 1}));
  const auto y = experts->forward(x, one);
  expect_close(y[1][2], experts->o_proj[1].matmul(experts->v_proj[1].matmul(x[1][2])), 1e-5);
  EXPECT_EQ(y.abs().sum(2).count_nonzero().item<int64_t>(), 1);
  const auto grad = torch::autograd::grad({y.sum()}, {x})[0];
  EXPECT_TRUE(torch::isfinite(grad).all().item<bool>());
  const auto empty =
      routing_from_dense(kExperts, torch::empty({0, 1}, torch::kInt64), torch::empty({0, 1}));
  EXPECT_EQ(experts->forward(torch::empty({0, kTokens, kHidden}), empty).numel(), 0);
}

TEST(AttentionExperts, RefusesInOneLine) {
  EXPECT_THROW(AttentionExperts({.hidden = 8, .experts = 0, .head_dim = 4}), UsageError);
  const auto experts = make_experts();
  const auto routing = random_routing(kTokens, 5, torch::ones({kTokens, kExperts}));
  EXPECT_THROW(experts->forward(torch::zeros({1, kTokens, 5}), routing), UsageError);
  EXPECT_THROW(experts->forward(torch::zeros({2, kTokens, kHidden}), routing), UsageError);
}

}  // namespace
}  // namespace cadre
