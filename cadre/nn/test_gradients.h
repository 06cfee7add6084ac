#pragma once

/// For tests of differentiable functions, here and in the rooms above.

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <functional>
#include <vector>

namespace cadre {

using Tensors = std::vector<torch::Tensor>;
using TensorFunction = std::function<torch::Tensor(const Tensors&)>;

/// Fresh leaves N(0, 1) that want gradients.
inline Tensors random_leaves(const std::vector<std::vector<int64_t>>& shapes, uint64_t seed = 1) {
  torch::manual_seed(seed);
  Tensors leaves;
  for (const auto& shape : shapes) leaves.push_back(torch::randn(shape).requires_grad_());
  return leaves;
}

inline void expect_close(const torch::Tensor& actual, const torch::Tensor& expected,
                         double tolerance = 1e-4) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const torch::Tensor error = (actual.to(torch::kFloat64) - expected.to(torch::kFloat64)).abs();
  const torch::Tensor bound = tolerance * (1 + expected.to(torch::kFloat64).abs());
  EXPECT_TRUE((error <= bound).all().item<bool>())
      << "largest error " << (error.numel() ? error.max().item<double>() : 0);
}

/// Values and gradients of `function` against `reference` (plain LibTorch in double precision), for
/// a random output gradient.
inline void expect_same_gradients(const TensorFunction& function, const TensorFunction& reference,
                                  const Tensors& leaves, double tolerance = 1e-4) {
  Tensors wide;
  for (const torch::Tensor& x : leaves) {
    wide.push_back(x.detach().to(torch::kFloat64).requires_grad_());
  }
  const torch::Tensor actual = function(leaves), expected = reference(wide);
  expect_close(actual, expected, tolerance);
  const torch::Tensor dy = torch::randn(actual.sizes());
  const auto grads = torch::autograd::grad({actual}, leaves, {dy});
  const auto wide_grads = torch::autograd::grad({expected}, wide, {dy.to(torch::kFloat64)});
  for (size_t i = 0; i < leaves.size(); ++i) {
    SCOPED_TRACE(testing::Message() << "gradient of input " << i);
    expect_close(grads[i], wide_grads[i], tolerance);
  }
}

}  // namespace cadre
