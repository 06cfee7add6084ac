#include "cadre/experts/combine.h"

#include <gtest/gtest.h>

#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

/// Tokens with 2, 0, 3 and 1 pairs; one of them weighs nothing.
Routing routing_with(const torch::Tensor& weight) {
  return {.experts = 4,
          .offsets = torch::tensor({0, 2, 2, 5, 6}, torch::kInt64),
          .expert = torch::tensor({0, 1, 3, 2, 0, 1}, torch::kInt32),
          .weight = weight};
}

torch::Tensor weights() { return torch::tensor({.3F, .1F, .2F, .2F, 0.F, .7F}); }

TEST(CombineWeights, WeightedAndSum) {
  const auto routing = routing_with(weights());
  EXPECT_TRUE(torch::equal(combine_weights(routing, Combine::kWeighted), routing.weight));
  EXPECT_TRUE(torch::equal(combine_weights(routing, Combine::kSum), torch::ones({6})));
  EXPECT_FALSE(
      combine_weights(routing_with(weights().requires_grad_()), Combine::kSum).requires_grad());
}

TEST(CombineWeights, ScaledSumGivesEqualWeightsOneEach) {
  const auto scaled = combine_weights(routing_with(weights()), Combine::kScaledSum);
  EXPECT_TRUE(torch::allclose(scaled, torch::tensor({1.5F, .5F, 1.F, 1.F, 0.F, 1.F})));
}

TEST(CombineWeights, ScaledSumsGradient) {
  const auto scaled = [](const Tensors& x) {
    return combine_weights(routing_with(x[0].abs()), Combine::kScaledSum);
  };
  const auto reference = [](const Tensors& x) {
    const auto w = x[0].abs();
    const auto part = [&](int64_t begin, int64_t count) {
      const auto row = w.narrow(0, begin, count);
      return row / row.sum() * static_cast<double>(count);
    };
    return torch::cat({part(0, 2), part(2, 3), part(5, 1)});
  };
  expect_same_gradients(scaled, reference, random_leaves({{6}}));
}

TEST(CombineWeights, NothingIsFine) {
  const Routing empty{.experts = 2,
                      .offsets = torch::zeros({1}, torch::kInt64),
                      .expert = torch::empty({0}, torch::kInt32),
                      .weight = torch::empty({0}).requires_grad_()};
  combine_weights(empty, Combine::kScaledSum).sum().backward();
  const auto silent = combine_weights(routing_with(torch::zeros({6})), Combine::kScaledSum);
  EXPECT_TRUE(torch::equal(silent, torch::zeros({6})));
}

}  // namespace
}  // namespace cadre
