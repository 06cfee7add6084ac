#include "cadre/nn/linear.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

using torch::Tensor;

TEST(Linear, GradientsMatchPlainTorch) {
  for (const int64_t rows : {0, 1, 7, 130}) {
    SCOPED_TRACE(rows);
    expect_same_gradients([](const Tensors& x) { return cadre::linear(x[0], x[1], x[2]); },
                          [](const Tensors& x) { return torch::linear(x[0], x[1], x[2]); },
                          random_leaves({{rows, 5}, {9, 5}, {9}}));
  }
}

TEST(Linear, TakesAnyRankAndStride) {
  expect_same_gradients(
      [](const Tensors& x) { return cadre::linear(x[0].transpose(0, 1), x[1].t()); },
      [](const Tensors& x) { return torch::linear(x[0].transpose(0, 1), x[1].t()); },
      random_leaves({{3, 2, 5}, {5, 9}}));
  const Tensors vector = random_leaves({{5}, {9, 5}});
  EXPECT_EQ(cadre::linear(vector[0], vector[1]).sizes(), torch::IntArrayRef({9}));
}

TEST(Linear, GivesGradientsOnlyToThoseWhoAsk) {
  Tensors x = random_leaves({{4, 5}, {9, 5}, {9}});
  x[1].set_requires_grad(false);
  cadre::linear(x[0], x[1], x[2]).sum().backward();
  EXPECT_TRUE(x[0].grad().defined());
  EXPECT_FALSE(x[1].grad().defined());
  expect_close(x[2].grad(), torch::full({9}, 4.0));
}

TEST(Linears, GradientsMatchSeparateProducts) {
  const auto joined = [](auto product) {
    return [product](const Tensors& x) {
      const Tensors y = product(x);
      return torch::cat({y[0], 2 * y[1], y[2]}, -1);
    };
  };
  expect_same_gradients(joined([](const Tensors& x) {
                          return linears(x[0], {x[1], x[2], x[3]});
                        }),
                        joined([](const Tensors& x) {
                          return Tensors{torch::linear(x[0], x[1]), torch::linear(x[0], x[2]),
                                         torch::linear(x[0], x[3])};
                        }),
                        random_leaves({{2, 3, 5}, {8, 5}, {1, 5}, {4, 5}}));
}

TEST(Linears, AnUnusedProductHasNoGradient) {
  const Tensors x = random_leaves({{3, 5}, {8, 5}, {4, 5}});
  linears(x[0], {x[1], x[2]})[1].sum().backward();
  EXPECT_FALSE(x[1].grad().defined());
  expect_close(x[0].grad(), x[2].detach().sum(0).expand({3, 5}));
}

TEST(Linear, RefusesWhatDoesNotFit) {
  const Tensor x = torch::zeros({2, 5}), weight = torch::zeros({9, 5});
  EXPECT_THROW(cadre::linear(x, torch::zeros({9, 4})), UsageError);
  EXPECT_THROW(cadre::linear(x, torch::zeros({5})), UsageError);
  EXPECT_THROW(cadre::linear(x, weight, torch::zeros({8})), UsageError);
  EXPECT_THROW(cadre::linear(x.to(torch::kFloat64), weight), UsageError);
  EXPECT_THROW(cadre::linear(Tensor(), weight), UsageError);
  EXPECT_THROW(linears(x, {weight, torch::zeros({9, 6})}), UsageError);
  EXPECT_THROW(Linear(LinearOptions{.in = 0, .out = 3}), UsageError);
}

TEST(Linear, KeepsTheTeamThatTorchWouldCut) {
  const Tensor large = torch::ones({1000, 1000});
  torch::set_num_threads(num_threads() + 1);
  EXPECT_EQ((large + large).sum().item<float>(), 2e6f);
  cadre::linear(torch::zeros({1, 5}), torch::zeros({9, 5}));
  EXPECT_EQ(torch::get_num_threads(), num_threads());
}

TEST(Linear, InitialisesFromTorchsSeed) {
  const LinearOptions options{
      .in = 100, .out = 50, .bias = LinearOptions::Bias::kZero, .init_std = 0.5};
  torch::manual_seed(3);
  const Linear a(options);
  torch::manual_seed(3);
  const Linear b(options);
  EXPECT_TRUE(torch::equal(a->weight, b->weight));
  EXPECT_NEAR(a->weight.std().item<double>(), 0.5, 0.02);
  EXPECT_EQ(a->bias.abs().max().item<float>(), 0);
  EXPECT_TRUE(a->named_parameters().contains("weight"));
}

}  // namespace
}  // namespace cadre
