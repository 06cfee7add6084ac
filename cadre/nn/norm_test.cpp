#include "cadre/nn/norm.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

using torch::Tensor;

Tensor plain_rms_norm(const Tensors& x) {
  return x[0] * (x[0].pow(2).mean(-1, true) + 1e-6).rsqrt() * x[1];
}

Tensor plain_layer_norm(const Tensors& x) {
  return torch::layer_norm(x[0], {x[0].size(-1)}, x[1], x[2], 1e-5);
}

TEST(Norm, GradientsMatchPlainTorch) {
  for (const int64_t rows : {0, 1, 6, 200}) {
    for (const int64_t width : {1, 5, 64}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << width);
      expect_same_gradients([](const Tensors& x) { return cadre::rms_norm(x[0], x[1], 1e-6); },
                            plain_rms_norm, random_leaves({{rows, width}, {width}}));
    }
    expect_same_gradients(
        [](const Tensors& x) { return cadre::layer_norm(x[0], x[1], x[2], 1e-5); },
        plain_layer_norm, random_leaves({{rows, 5}, {5}, {5}}));
  }
}

TEST(Norm, TakesAnyRankAndStride) {
  expect_same_gradients(
      [](const Tensors& x) { return cadre::rms_norm(x[0].transpose(0, 2), x[1], 1e-6); },
      [](const Tensors& x) {
        return plain_rms_norm({x[0].transpose(0, 2), x[1]});
      },
      random_leaves({{5, 3, 2}, {5}}));
}

TEST(Norm, RefusesWhatDoesNotFit) {
  EXPECT_THROW(cadre::rms_norm(torch::zeros({2, 5}), torch::zeros({4}), 1e-6), UsageError);
  EXPECT_THROW(cadre::rms_norm(torch::zeros({2, 5}).to(torch::kInt64), torch::zeros({5}), 1e-6),
               UsageError);
  EXPECT_THROW(cadre::layer_norm(torch::zeros({2, 5}), torch::zeros({5}), torch::zeros({1}), 1e-6),
               UsageError);
  EXPECT_THROW(RmsNorm(0), UsageError);
}

TEST(Norm, ModulesStartAsPlainNormalisation) {
  const Tensor x = random_leaves({{4, 8}})[0].detach() * 3 + 2;
  expect_close(RmsNorm(8)->forward(x).pow(2).mean(-1), torch::ones({4}));
  expect_close(LayerNorm(8)->forward(x).mean(-1), torch::zeros({4}));
}

}  // namespace
}  // namespace cadre
