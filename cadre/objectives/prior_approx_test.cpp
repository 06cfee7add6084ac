#include "cadre/objectives/prior_approx.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"

namespace cadre {
namespace {

using torch::Tensor;

TEST(PriorApprox, ASliceThatIsItsShareIsAPositive) {
  torch::manual_seed(1);
  const Tensor slices = torch::randn({4, 6, 8});
  for (int64_t k = 1; k <= 4; ++k) {
    for (int64_t j = 0; j < 4; ++j) {
      const Tensor labels = nearest_slices(slices[j] * 4 / k, slices, k);
      EXPECT_TRUE(torch::equal(labels.select(1, j), torch::ones({6}))) << k << " " << j;
      EXPECT_TRUE(torch::equal(labels.sum(1), torch::full({6}, k).to(torch::kFloat32)));
    }
  }
}

TEST(PriorApprox, DistanceIsFromTheShareOfTheOutput) {
  const Tensor v = torch::ones({1, 3});
  const Tensor slices = torch::stack({16 * v, 4 * v, v, -v});
  EXPECT_EQ(nearest_slices(4 * v, slices, 1).argmax(1).item<int64_t>(), 2);  // a quarter: v
  EXPECT_TRUE(torch::equal(nearest_slices(8 * v, slices, 2),                 // half: 4 v
                           torch::tensor({{0.0F, 1.0F, 1.0F, 0.0F}})));
}

TEST(PriorApprox, TiesGoToTheLowerSlice) {
  const Tensor labels = nearest_slices(torch::ones({1, 2}), torch::zeros({4, 1, 2}), 2);
  EXPECT_TRUE(torch::equal(labels, torch::tensor({{1.0F, 1.0F, 0.0F, 0.0F}})));
}

TEST(PriorApprox, IsZeroExactlyAtTheLabelsSoftmax) {
  const Tensor labels = torch::tensor({{1.0F, 0.0F, 1.0F, 0.0F}, {0.0F, 1.0F, 0.0F, 1.0F}});
  EXPECT_NEAR(prior_approximation(labels + 3, labels).item<double>(), 0, 1e-6);
  EXPECT_GT(prior_approximation(torch::zeros({2, 4}), labels).item<double>(), 0.05);
}

TEST(PriorApprox, IsTheMeanOverTokensOfTheFormula) {
  const Tensor labels = torch::tensor({{1.0F, 0.0F}, {0.0F, 1.0F}});
  const Tensor logits = torch::tensor({{2.0F, 0.0F}, {0.0F, 0.0F}});
  const double p = 1 / (1 + std::exp(-2.0)), l = std::exp(1.0) / (std::exp(1.0) + 1);
  const double first = p * std::log(p / l) + (1 - p) * std::log((1 - p) / (1 - l));
  const double second = 0.5 * std::log(0.5 / l) + 0.5 * std::log(0.5 / (1 - l));
  EXPECT_NEAR(prior_approximation(logits, labels).item<double>(), (first + second) / 2, 1e-6);
}

TEST(PriorApprox, GradientIsThatOfFiniteDifferences) {
  torch::manual_seed(2);
  const Tensor labels = nearest_slices(torch::randn({5, 3}), torch::randn({4, 5, 3}), 2);
  Tensor logits = torch::randn({5, 4}).set_requires_grad(true);
  prior_approximation(logits, labels).backward();
  const torch::NoGradGuard no_grad;
  constexpr float kStep = 1e-2F;
  for (int64_t i = 0; i < logits.numel(); ++i) {
    float& value = logits.data_ptr<float>()[i];
    const float before = value;
    value = before + kStep;
    const double above = prior_approximation(logits, labels).item<double>();
    value = before - kStep;
    const double below = prior_approximation(logits, labels).item<double>();
    value = before;
    EXPECT_NEAR(logits.grad().view(-1)[i].item<double>(), (above - below) / (2 * kStep), 2e-4);
  }
}

TEST(PriorApprox, AgreementCountsPositivesAmongTheLargest) {
  const Tensor labels = torch::tensor({{1.0F, 1.0F, 0.0F, 0.0F}, {0.0F, 0.0F, 1.0F, 1.0F}});
  const Tensor logits = torch::tensor({{3.0F, 2.0F, 1.0F, 0.0F}, {3.0F, 0.0F, 2.0F, 1.0F}});
  EXPECT_DOUBLE_EQ(label_agreement(logits, labels), 0.75);
}

TEST(PriorApprox, RefusesShapesThatDoNotFit) {
  EXPECT_THROW(nearest_slices(torch::zeros({2, 3}), torch::zeros({4, 3, 3}), 1), UsageError);
  EXPECT_THROW(nearest_slices(torch::zeros({2, 3}), torch::zeros({4, 2, 3}), 5), UsageError);
  EXPECT_THROW(prior_approximation(torch::zeros({2, 4}), torch::zeros({2, 3})), UsageError);
}

}  // namespace
}  // namespace cadre
