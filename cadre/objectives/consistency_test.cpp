#include "cadre/objectives/consistency.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

TEST(SymmetricKl, IsHalfOfBothDivergences) {
  torch::manual_seed(1);
  const auto a = torch::randn({7, 11}), b = torch::randn({7, 11});
  const auto p = torch::softmax(a, 1), q = torch::softmax(b, 1);
  const auto kl = [](const torch::Tensor& x, const torch::Tensor& y) {
    return (x * (x.log() - y.log())).sum(1).mean().item<double>();
  };
  const double value = symmetric_kl(a, b).item<double>();
  EXPECT_NEAR(value, (kl(p, q) + kl(q, p)) / 2, 1e-6);
  EXPECT_NEAR(symmetric_kl(b, a).item<double>(), value, 1e-7);
  EXPECT_EQ(symmetric_kl(a, a).item<double>(), 0);
  EXPECT_GT(value, 0);
}

TEST(SymmetricKl, GradientsReachBothSides) {
  const auto ours = [](const Tensors& x) { return symmetric_kl(x[0], x[1]); };
  const auto reference = [](const Tensors& x) {
    const auto p = torch::softmax(x[0], -1), q = torch::softmax(x[1], -1);
    return ((p * (p / q).log()).sum(-1) + (q * (q / p).log()).sum(-1)).mean() / 2;
  };
  expect_same_gradients(ours, reference, random_leaves({{2, 5, 9}, {2, 5, 9}}));
}

TEST(SymmetricKl, SurvivesProbabilitiesThatUnderflow) {
  const auto a = torch::tensor({{0.F, -500.F, 3.F}}).requires_grad_();
  const auto b = torch::tensor({{0.F, 3.F, -500.F}}).requires_grad_();
  const auto value = symmetric_kl(a, b);
  value.backward();
  EXPECT_TRUE(torch::isfinite(value).item<bool>());
  EXPECT_TRUE(torch::isfinite(a.grad()).all().item<bool>());
}

TEST(SymmetricKl, RowsThatDoNotCountAreLeftOut) {
  torch::manual_seed(1);
  const auto a = torch::randn({4, 6}), b = torch::randn({4, 6});
  const auto counted = torch::tensor({1, 1, 0, 0}).to(torch::kBool);
  EXPECT_NEAR(symmetric_kl(a, b, counted).item<double>(),
              symmetric_kl(a.narrow(0, 0, 2), b.narrow(0, 0, 2)).item<double>(), 1e-7);
  EXPECT_EQ(symmetric_kl(a, b, torch::zeros({4}, torch::kBool)).item<double>(), 0);
  EXPECT_EQ(symmetric_kl(torch::empty({0, 6}), torch::empty({0, 6})).item<double>(), 0);
}

TEST(ConsistencyLoss, IsTwoCrossEntropiesAndTheTerm) {
  torch::manual_seed(1);
  const auto a = torch::randn({3, 4, 6}), b = torch::randn({3, 4, 6});
  auto targets = torch::randint(0, 6, {3, 4});
  targets[1][2] = -100;
  const auto ce = [&](const torch::Tensor& logits) {
    return torch::nn::functional::cross_entropy(
               logits.view({-1, 6}), targets.view(-1),
               torch::nn::functional::CrossEntropyFuncOptions().ignore_index(-100))
        .item<double>();
  };
  const double expected = ce(a) + ce(b) + 3 * symmetric_kl(a, b, targets >= 0).item<double>();
  EXPECT_NEAR(consistency_loss(a, b, targets, {.coefficient = 3}).item<double>(), expected, 1e-5);
  EXPECT_NEAR(consistency_loss(a, a, targets).item<double>(), 2 * ce(a), 1e-5);
}

TEST(ChunkedConsistency, EqualsTheLossOfAllLogits) {
  auto targets = torch::randint(0, 11, {2, 5});
  targets[0][3] = targets[1][0] = -100;
  for (const int64_t chunk : {1, 3, 4, 100}) {
    const auto ours = [&](const Tensors& x) {
      return chunked_consistency(x[0], x[1], x[2], targets, {.coefficient = 3}, chunk).total;
    };
    const auto reference = [&](const Tensors& x) {
      const auto log_p = torch::log_softmax(torch::matmul(x[0], x[2].t()), -1).view({10, 11});
      const auto log_q = torch::log_softmax(torch::matmul(x[1], x[2].t()), -1).view({10, 11});
      const auto rows = torch::nonzero(targets.view(-1) >= 0).squeeze(1);
      const auto kl = ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1) / 2;
      const auto ce =
          -(log_p + log_q).gather(1, targets.view({-1, 1}).clamp_min(0)).squeeze(1) + 3 * kl;
      return ce.index_select(0, rows).mean();
    };
    expect_same_gradients(ours, reference, random_leaves({{2, 5, 6}, {2, 5, 6}, {11, 6}}), 2e-4);
  }
}

TEST(ChunkedConsistency, ReportsItsParts) {
  const auto x = random_leaves({{7, 6}, {7, 6}, {11, 6}});
  const auto targets = torch::randint(0, 11, {7});
  const auto parts = chunked_consistency(x[0], x[1], x[2], targets, {.coefficient = 3}, 2);
  const auto a = torch::matmul(x[0], x[2].t()), b = torch::matmul(x[1], x[2].t());
  EXPECT_NEAR(parts.divergence, symmetric_kl(a, b).item<double>(), 1e-5);
  EXPECT_NEAR(parts.total.item<double>(), 2 * parts.cross_entropy + 3 * parts.divergence, 1e-5);
  const auto none = torch::full({7}, -100, torch::kInt64);
  const auto empty = chunked_consistency(x[0], x[1], x[2], none);
  EXPECT_EQ(empty.total.item<double>(), 0);
  EXPECT_EQ(torch::autograd::grad({empty.total}, {x[2]})[0].abs().sum().item<double>(), 0);
}

TEST(ConsistencyLoss, RefusesInOneLine) {
  EXPECT_THROW(chunked_consistency(torch::zeros({2, 3}), torch::zeros({2, 3}), torch::zeros({5, 4}),
                                   torch::zeros({2}, torch::kInt64)),
               UsageError);
  EXPECT_THROW(symmetric_kl(torch::zeros({2, 3}), torch::zeros({2, 4})), UsageError);
  EXPECT_THROW(symmetric_kl(torch::zeros({2, 3}), torch::zeros({2, 3}), torch::zeros({3})),
               UsageError);
}

}  // namespace
}  // namespace cadre
