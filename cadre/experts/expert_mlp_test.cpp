#include "cadre/experts/expert_mlp.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/nn/test_gradients.h"

namespace cadre {
namespace {

TEST(GroupedLinear, EqualsOneProductAnExpert) {
  const auto offsets = torch::tensor({0, 3, 3, 7}, torch::kInt64);  // the second has no rows
  const auto grouped = [&](const Tensors& in) { return grouped_linear(in[0], offsets, in[1]); };
  const auto one_by_one = [&](const Tensors& in) {
    return torch::cat(
        {in[0].narrow(0, 0, 3).matmul(in[1][0].t()), in[0].narrow(0, 3, 4).matmul(in[1][2].t())});
  };
  expect_same_gradients(grouped, one_by_one, random_leaves({{7, 5}, {3, 4, 5}}));
}

TEST(GroupedLinear, RefusesWhatDoesNotFit) {
  const auto x = torch::zeros({3, 2}), weight = torch::zeros({1, 4, 2});
  EXPECT_THROW(grouped_linear(x, torch::tensor({0, 2}, torch::kInt64), weight), UsageError);
  EXPECT_THROW(grouped_linear(x, torch::tensor({0, 3}, torch::kInt64), torch::zeros({1, 4, 3})),
               UsageError);
}

class ExpertMlpOf : public testing::TestWithParam<Activation> {};

TEST_P(ExpertMlpOf, EqualsTheSumOverPairs) {
  torch::manual_seed(3);
  ExpertMlp experts({.in = 6, .inner = 5, .out = 3, .experts = 4, .activation = GetParam()});
  // A token with an expert twice, one with a null expert, one with none.
  const auto ids = torch::tensor({{0, 1}, {2, 2}, {3, 4}, {4, 5}, {1, 0}}, torch::kInt32);
  const auto forward = [&](const Tensors& in) {
    experts.up = in[1], experts.up_bias = in[2], experts.down = in[3], experts.down_bias = in[4];
    return experts.forward(in[0], routing_from_dense(4, ids, in[5]));
  };
  const auto reference = [&](const Tensors& in) {
    Tensors rows;
    for (int64_t t = 0; t < 5; ++t) {
      auto y = torch::zeros({3}, torch::kFloat64);
      for (int64_t j = 0; j < 2; ++j) {
        const int64_t e = ids[t][j].item<int64_t>();
        if (e >= 4) continue;
        const auto z = torch::mv(in[1][e], in[0][t]) + in[2][e];
        const auto a = GetParam() == Activation::kRelu ? torch::relu(z) : torch::gelu(z, "tanh");
        y = y + in[5][t][j] * (torch::mv(in[3][e], a) + in[4][e]);
      }
      rows.push_back(y);
    }
    return torch::stack(rows);
  };
  expect_same_gradients(forward, reference,
                        random_leaves({{5, 6}, {4, 5, 6}, {4, 5}, {4, 3, 5}, {4, 3}, {5, 2}}, 5));
}

INSTANTIATE_TEST_SUITE_P(Activations, ExpertMlpOf,
                         testing::Values(Activation::kGelu, Activation::kRelu));

TEST(ExpertMlp, NoTokensAndBadSizes) {
  ExpertMlp experts({.in = 2, .inner = 3, .out = 4, .experts = 2});
  const Routing none =
      routing_from_dense(2, torch::empty({0, 1}, torch::kInt32), torch::empty({0, 1}));
  EXPECT_EQ(experts.forward(torch::empty({0, 2}), none).sizes(), (std::vector<int64_t>{0, 4}));
  EXPECT_THROW(experts.forward(torch::empty({1, 2}), none), UsageError);
  EXPECT_THROW(ExpertMlp({.in = 0, .inner = 3, .out = 4, .experts = 2}), UsageError);
}

}  // namespace
}  // namespace cadre
