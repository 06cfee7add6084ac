#include "cadre/nn/feed_forward.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

using torch::Tensor;

Tensor plain_silu_mul(const Tensor& gate_up) {
  const auto halves = gate_up.chunk(2, -1);
  return torch::silu(halves[0]) * halves[1];
}

Tensor plain_swi_glu(const Tensors& x) {
  return torch::linear(torch::silu(torch::linear(x[0], x[1])) * torch::linear(x[0], x[2]), x[3]);
}

TEST(FeedForward, SiluMulGradientsMatchPlainTorch) {
  for (const int64_t rows : {0, 1, 33}) {
    expect_same_gradients([](const Tensors& x) { return silu_mul(x[0]); },
                          [](const Tensors& x) { return plain_silu_mul(x[0]); },
                          random_leaves({{rows, 14}}));
  }
}

TEST(FeedForward, GeluGradientsMatchPlainTorch) {
  expect_same_gradients([](const Tensors& x) { return cadre::gelu(3 * x[0]); },
                        [](const Tensors& x) { return torch::gelu(3 * x[0], "tanh"); },
                        random_leaves({{9, 31}}));
}

TEST(FeedForward, SwiGluGradientsMatchPlainTorch) {
  for (const int64_t rows : {0, 1, 70}) {
    SCOPED_TRACE(rows);
    expect_same_gradients([](const Tensors& x) { return swi_glu(x[0], x[1], x[2], x[3]); },
                          plain_swi_glu, random_leaves({{rows, 6}, {10, 6}, {10, 6}, {6, 10}}));
  }
}

TEST(FeedForward, ModulesUseTheirNamedWeights) {
  torch::manual_seed(1);
  SwiGlu swi_glu(6, 10, 0.5);
  GeluFeedForward gelu(6, 10, 0.5);
  const Tensor x = torch::randn({2, 3, 6});
  LayerContext context;
  const auto p = swi_glu.named_parameters();
  EXPECT_EQ(p.keys(),
            (std::vector<std::string>{"gate_proj.weight", "up_proj.weight", "down_proj.weight"}));
  expect_close(
      swi_glu.forward(x, context),
      plain_swi_glu({x, p["gate_proj.weight"], p["up_proj.weight"], p["down_proj.weight"]}));
  const auto g = gelu.named_parameters();
  const Tensor inner =
      torch::gelu(torch::linear(x, g["up_proj.weight"], g["up_proj.bias"]), "tanh");
  expect_close(gelu.forward(x, context),
               torch::linear(inner, g["down_proj.weight"], g["down_proj.bias"]));
}

TEST(FeedForward, RefusesWhatDoesNotFit) {
  EXPECT_THROW(silu_mul(torch::zeros({3, 5})), UsageError);
  const Tensor x = torch::zeros({3, 6}), in = torch::zeros({10, 6}), out = torch::zeros({6, 10});
  EXPECT_THROW(swi_glu(x, in, torch::zeros({9, 6}), out), UsageError);
  EXPECT_THROW(swi_glu(x, in, in, in), UsageError);
  EXPECT_THROW(swi_glu(torch::zeros({3, 5}), in, in, out), UsageError);
  EXPECT_THROW(SwiGlu(6, 0), UsageError);
}

}  // namespace
}  // namespace cadre
