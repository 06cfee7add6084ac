#include "cadre/experts/expert_ffn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "cadre/base/error.h"

namespace cadre {
namespace {

torch::Tensor random_tensor(at::IntArrayRef sizes, uint64_t seed, double deviation = 1.0) {
  return torch::empty(sizes).normal_(0.0, deviation, at::detail::createCPUGenerator(seed));
}

struct Experts {
  torch::Tensor gate, up, down;
};

Experts random_experts(int64_t experts, int64_t hidden, int64_t inner) {
  return {random_tensor({experts, inner, hidden}, 1, 0.3).requires_grad_(),
          random_tensor({experts, inner, hidden}, 2, 0.3).requires_grad_(),
          random_tensor({experts, hidden, inner}, 3, 0.3).requires_grad_()};
}

torch::Tensor swiglu(const torch::Tensor& x, const torch::Tensor& gate, const torch::Tensor& up,
                     const torch::Tensor& down) {
  return torch::matmul(torch::silu(torch::matmul(x, gate.t())) * torch::matmul(x, up.t()),
                       down.t());
}

/// The usual implementation: one expert after the other, index_add of its tokens.
torch::Tensor plain_experts(const torch::Tensor& x, const Routing& routing,
                            const Experts& experts) {
  const auto token = torch::arange(x.size(0)).repeat_interleave(routing.offsets.diff());
  auto y = torch::zeros_like(x);
  for (int64_t e = 0; e < routing.experts; ++e) {
    const auto pairs = routing.expert.eq(e).nonzero().squeeze(1);
    const auto tokens = token.index_select(0, pairs);
    const auto out =
        swiglu(x.index_select(0, tokens), experts.gate[e], experts.up[e], experts.down[e]);
    y = y.index_add(0, tokens, out * routing.weight.index_select(0, pairs).unsqueeze(1));
  }
  return y;
}

/// What a selection of ids [T, k] gives, with weights that take a gradient.
struct Case {
  std::string name;
  int64_t tokens, experts, hidden, inner;
  torch::Tensor ids;
  torch::Tensor valid = {};
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

torch::Tensor random_ids(int64_t tokens, int64_t experts, int64_t k) {
  return std::get<1>(random_tensor({tokens, experts}, 7).topk(k, 1));
}

std::vector<Case> cases() {
  const auto ints = torch::kInt64;
  return {
      {"several_experts", 29, 6, 16, 24, random_ids(29, 6, 2)},
      {"odd_sizes", 13, 5, 7, 3, random_ids(13, 5, 3)},
      {"one_expert", 9, 1, 8, 8, torch::zeros({9, 1}, ints)},
      {"all_experts_active", 9, 4, 8, 8, random_ids(9, 4, 4)},
      {"experts_without_tokens", 40, 8, 8, 16, torch::full({40, 1}, 5, ints)},
      {"many_experts_few_tokens", 2, 64, 8, 4, random_ids(2, 64, 2)},
      {"variable_k_and_empty_tokens", 12, 4, 8, 8, random_ids(12, 7, 3)},
      {"padding", 12, 4, 8, 8, random_ids(12, 4, 2), torch::arange(12).lt(7)},
      {"an_expert_twice_for_a_token", 3, 2, 8, 8,
       torch::tensor({0, 0, 1, 0, 1, 1}, ints).view({3, 2})},
      {"no_pairs", 5, 3, 8, 8, torch::full({5, 2}, 3, ints)},
      {"no_tokens", 0, 3, 8, 8, torch::zeros({0, 2}, ints)},
  };
}

class ExpertFfnCases : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    const Case& c = GetParam();
    x = random_tensor({c.tokens, c.hidden}, 4).requires_grad_();
    dense_weights = random_tensor(c.ids.sizes(), 5).abs().requires_grad_();
    experts = random_experts(c.experts, c.hidden, c.inner);
    target = random_tensor({c.tokens, c.hidden}, 6);
  }
  Routing routing() const {
    const Case& c = GetParam();
    return routing_from_dense(c.experts, c.ids, dense_weights, c.valid);
  }
  std::vector<torch::Tensor> inputs() const {
    return {x, dense_weights, experts.gate, experts.up, experts.down};
  }
  torch::Tensor run() const {
    return expert_ffn(x, routing(), experts.gate, experts.up, experts.down);
  }

  torch::Tensor x, dense_weights, target;
  Experts experts;
};
INSTANTIATE_TEST_SUITE_P(Experts, ExpertFfnCases, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(ExpertFfnCases, ValuesAndGradientsOfTheLoopOverExperts) {
  const auto y = run(), expected = plain_experts(x, routing(), experts);
  EXPECT_TRUE(torch::allclose(y, expected, 1e-4, 1e-5));
  const auto gradients = torch::autograd::grad({(y * target).sum()}, inputs());
  const auto wanted = torch::autograd::grad({(expected * target).sum()}, inputs());
  for (size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_TRUE(torch::allclose(gradients[i], wanted[i], 1e-4, 1e-5)) << "input " << i;
  }
}

TEST_P(ExpertFfnCases, SameBitsWithAndWithoutGradient) {
  const auto y = run();
  torch::NoGradGuard no_grad;
  EXPECT_TRUE(torch::equal(run(), y));
}

TEST_P(ExpertFfnCases, GradientByCentralDifferences) {
  if (routing().pairs() == 0) return;  // constant: nothing to compare
  const auto gradients = torch::autograd::grad({(run() * target).sum()}, inputs());
  torch::NoGradGuard no_grad;
  constexpr double kStep = 1e-2;
  for (size_t i = 0; i < inputs().size(); ++i) {
    auto input = inputs()[i];
    const auto original = input.clone();
    // Along the gradient, where the derivative is largest beside the rounding of fp32.
    const auto direction = gradients[i] / gradients[i].norm();
    const auto value = [&](double step) {
      input.copy_(original + direction * step);
      const double result = (run().to(torch::kFloat64) * target).sum().item<double>();
      input.copy_(original);
      return result;
    };
    const double numeric = (value(kStep) - value(-kStep)) / (2 * kStep);
    EXPECT_NEAR(gradients[i].norm().item<double>() / numeric, 1, 1e-3) << "input " << i;
  }
}

TEST(ExpertFfn, SegmentsWithWeightOneAreTheDenseFeedForward) {
  constexpr int64_t kTokens = 11, kHidden = 16, kInner = 24, kParts = 4;
  const auto x = random_tensor({kTokens, kHidden}, 1);
  const auto gate = random_tensor({kInner, kHidden}, 2, 0.3),
             up = random_tensor({kInner, kHidden}, 3, 0.3);
  const auto down = random_tensor({kHidden, kInner}, 4, 0.3);
  const auto ids = torch::arange(kParts).expand({kTokens, kParts});
  const Routing all = routing_from_dense(kParts, ids, torch::ones({kTokens, kParts}));
  const auto cut = [](const torch::Tensor& w) {
    return w.view({kParts, kInner / kParts, kHidden});
  };
  const auto parts = down.view({kHidden, kParts, kInner / kParts}).transpose(0, 1);
  EXPECT_TRUE(torch::allclose(expert_ffn(x, all, cut(gate), cut(up), parts),
                              swiglu(x, gate, up, down), 1e-5, 1e-5));
}

TEST(ExpertFfn, ExpertsWithoutTokensAreNeverRead) {
  auto experts = random_experts(3, 8, 8);
  {
    torch::NoGradGuard no_grad;
    for (auto& w : {experts.gate, experts.up, experts.down}) w[1].fill_(NAN);
  }
  const auto ids = torch::tensor({0, 2, 2, 0}, torch::kInt64).view({2, 2});
  const auto x = random_tensor({2, 8}, 4).requires_grad_();
  const auto weights = torch::ones({2, 2}).requires_grad_();
  const auto y =
      expert_ffn(x, routing_from_dense(3, ids, weights), experts.gate, experts.up, experts.down);
  y.sum().backward();
  EXPECT_TRUE(y.isfinite().all().item<bool>());
  EXPECT_TRUE(x.grad().isfinite().all().item<bool>());
  EXPECT_TRUE(weights.grad().isfinite().all().item<bool>());
  EXPECT_EQ(experts.gate.grad()[1].abs().sum().item<float>(), 0);
}

TEST(ExpertFfn, WeightGradientsArePassedOnWithoutACopy) {
  auto experts = random_experts(3, 8, 8);
  std::vector<void*> produced;
  for (auto& w : {experts.gate, experts.up, experts.down}) {
    w.register_hook(
        [&produced](const torch::Tensor& grad) { produced.push_back(grad.data_ptr()); });
  }
  const Routing routing = routing_from_dense(3, random_ids(5, 3, 2), torch::ones({5, 2}));
  expert_ffn(random_tensor({5, 8}, 4), routing, experts.gate, experts.up, experts.down)
      .sum()
      .backward();
  std::vector<void*> kept;
  for (auto& w : {experts.gate, experts.up, experts.down}) kept.push_back(w.grad().data_ptr());
  EXPECT_TRUE(std::is_permutation(kept.begin(), kept.end(), produced.begin(), produced.end()));
}

TEST(ExpertFfn, RefusesASecondDerivative) {
  auto experts = random_experts(3, 8, 8);
  const Routing routing = routing_from_dense(3, random_ids(5, 3, 2), torch::ones({5, 2}));
  const auto y =
      expert_ffn(random_tensor({5, 8}, 4), routing, experts.gate, experts.up, experts.down);
  EXPECT_ANY_THROW(
      torch::autograd::grad({y.sum()}, {experts.gate}, {}, true, /*create_graph=*/true));
}

TEST(ExpertFfn, RefusesShapesThatDoNotFit) {
  const auto experts = random_experts(3, 8, 4);
  const Routing routing = routing_from_dense(3, random_ids(5, 3, 2), torch::ones({5, 2}));
  const auto x = random_tensor({5, 8}, 4);
  const auto run = [&](const torch::Tensor& x, const Routing& routing, const Experts& w) {
    return [&, w] { expert_ffn(x, routing, w.gate, w.up, w.down); };
  };
  EXPECT_NO_THROW(run(x, routing, experts)());
  EXPECT_THROW(run(random_tensor({4, 8}, 4), routing, experts)(), UsageError);
  EXPECT_THROW(run(random_tensor({5, 7}, 4), routing, experts)(), UsageError);
  EXPECT_THROW(run(x.to(torch::kFloat64), routing, experts)(), UsageError);
  EXPECT_THROW(run(x, routing, random_experts(4, 8, 4))(), UsageError);
  EXPECT_THROW(run(x, routing, {experts.gate, experts.up, experts.gate})(), UsageError);
  EXPECT_THROW(run(x, routing, {experts.gate, experts.down, experts.down})(), UsageError);
}

}  // namespace
}  // namespace cadre
