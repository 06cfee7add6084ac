#include "cadre/objectives/cross_entropy.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

using torch::Tensor;

Tensor plain_loss(const Tensors& x, const Tensor& targets) {
  const Tensor logits = torch::linear(x[0], x[1]).flatten(0, -2);
  return torch::cross_entropy_loss(logits, targets.flatten());
}

Tensor random_targets(std::vector<int64_t> shape, double ignored) {
  Tensor targets = torch::randint(13, shape, torch::kInt64);
  return targets.masked_fill(torch::rand(shape) < ignored, -100);
}

TEST(CrossEntropy, GradientsMatchPlainTorchForAnyChunk) {
  for (const int64_t chunk : {1, 4, 7, 28, 1000}) {
    for (const double ignored : {0.0, 0.4}) {
      SCOPED_TRACE(testing::Message() << chunk << " " << ignored);
      const Tensors leaves = random_leaves({{4, 7, 5}, {13, 5}});
      const Tensor targets = random_targets({4, 7}, ignored);
      expect_same_gradients(
          [&](const Tensors& x) { return chunked_cross_entropy(x[0], x[1], targets, chunk); },
          [&](const Tensors& x) { return plain_loss(x, targets); }, leaves);
    }
  }
}

TEST(CrossEntropy, UniformLogitsCostLogV) {
  const Tensor targets = random_targets({6}, 0);
  const Tensor loss = chunked_cross_entropy(torch::zeros({6, 5}), torch::randn({13, 5}), targets);
  EXPECT_NEAR(loss.item<double>(), std::log(13.0), 1e-6);
}

TEST(CrossEntropy, NothingToCountIsZeroWithoutGradient) {
  for (const int64_t tokens : {0, 3}) {
    const Tensors x = random_leaves({{tokens, 5}, {13, 5}});
    const Tensor targets = torch::full({tokens}, -100, torch::kInt64);
    const Tensor loss = chunked_cross_entropy(x[0], x[1], targets);
    EXPECT_EQ(loss.item<float>(), 0);
    loss.backward();
    EXPECT_EQ(x[0].grad().abs().sum().item<float>(), 0);
    EXPECT_EQ(x[1].grad().abs().sum().item<float>(), 0);
  }
}

TEST(CrossEntropy, TheWeightAloneMayLearn) {
  Tensors x = random_leaves({{6, 5}, {13, 5}});
  x[0].set_requires_grad(false);
  const Tensor targets = random_targets({6}, 0);
  (3 * chunked_cross_entropy(x[0], x[1], targets, 4)).backward();
  const Tensor expected = torch::autograd::grad({3 * plain_loss(x, targets)}, {x[1]})[0];
  expect_close(x[1].grad(), expected);
}

TEST(CrossEntropy, TokenLossesAverageToTheLoss) {
  const Tensors x = random_leaves({{4, 7, 5}, {13, 5}});
  const Tensor targets = random_targets({4, 7}, 0.3);
  const Tensor losses = token_losses(x[0], x[1], targets, 3);
  EXPECT_EQ(losses.sizes(), targets.sizes());
  EXPECT_FALSE(losses.requires_grad());
  EXPECT_EQ(losses.masked_select(targets == -100).abs().sum().item<float>(), 0);
  const Tensor mean = losses.sum() / (targets != -100).sum();
  expect_close(mean, chunked_cross_entropy(x[0], x[1], targets));
  const torch::NoGradGuard no_grad;
  expect_close(mean, chunked_cross_entropy(x[0], x[1], targets));
}

TEST(CrossEntropy, RefusesWhatDoesNotFit) {
  const Tensor hidden = torch::zeros({2, 5}), weight = torch::zeros({13, 5});
  const auto targets = [](std::vector<int64_t> ids) { return torch::tensor(ids, torch::kInt64); };
  EXPECT_THROW(chunked_cross_entropy(hidden, weight, targets({0, 13})), UsageError);
  EXPECT_THROW(chunked_cross_entropy(hidden, weight, targets({0, -1})), UsageError);
  EXPECT_THROW(chunked_cross_entropy(hidden, weight, targets({0})), UsageError);
  EXPECT_THROW(chunked_cross_entropy(hidden, weight, targets({0, 1}), 0), UsageError);
  EXPECT_THROW(token_losses(hidden, torch::zeros({13, 4}), targets({0, 1})), UsageError);
}

}  // namespace
}  // namespace cadre
