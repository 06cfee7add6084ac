#include "cadre/nn/embedding.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

using torch::Tensor;

TEST(Embedding, GradientsMatchPlainTorch) {
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{0}, {1}, {2, 3}, {40, 50}, {2, 3, 4}}) {
    const Tensor ids = torch::randint(0, 11, shape, torch::kInt64);
    expect_same_gradients([&](const Tensors& x) { return cadre::embedding(ids, x[0]); },
                          [&](const Tensors& x) { return torch::embedding(x[0], ids); },
                          random_leaves({{11, 6}}));
  }
}

TEST(Embedding, RepeatedIdsAddUpAndUnusedRowsStayZero) {
  const Tensor weight = random_leaves({{3, 2}})[0];
  cadre::embedding(torch::tensor({{2, 0, 2}}, torch::kInt64), weight).sum().backward();
  expect_close(weight.grad(), torch::tensor({{1., 1.}, {0., 0.}, {2., 2.}}));
}

TEST(Embedding, RefusesIdsOutsideTheTable) {
  const Tensor weight = torch::zeros({3, 2});
  EXPECT_THROW(cadre::embedding(torch::tensor({0, 3}, torch::kInt64), weight), UsageError);
  EXPECT_THROW(cadre::embedding(torch::tensor({-1}, torch::kInt64), weight), UsageError);
  EXPECT_THROW(cadre::embedding(torch::tensor({1.0}), weight), UsageError);
  EXPECT_THROW(Embedding(0, 4), UsageError);
  try {
    cadre::embedding(torch::tensor({0, 7}, torch::kInt64), weight);
  } catch (const UsageError& error) {
    EXPECT_STREQ(error.what(), "token ids holds 7 at place 1, allowed are 0 to 2");
  }
}

}  // namespace
}  // namespace cadre
