#include "cadre/objectives/distillation.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"

namespace cadre {
namespace {

bool close(const torch::Tensor& a, const torch::Tensor& b, double tolerance = 1e-5) {
  return torch::allclose(a, b, tolerance, tolerance);
}

TEST(Distillation, TargetsAreTheTeachersLargestInItsOwnColumns) {
  const auto logits = torch::tensor({{1.0F, -2.0F, 3.0F}, {0.0F, 5.0F, -1.0F}});
  const auto targets = teacher_targets(logits, 2, 6, 2);
  const auto s = [](double x) { return static_cast<float>(1 / (1 + std::exp(-x))); };
  EXPECT_TRUE(close(targets, torch::tensor({{0.0F, 0.0F, s(1), 0.0F, s(3), 0.0F},
                                            {0.0F, 0.0F, s(0), s(5), 0.0F, 0.0F}})));
  EXPECT_TRUE(close(teacher_targets(logits, 0, 3, 100), torch::sigmoid(logits)));
  EXPECT_THROW(teacher_targets(logits, 4, 6, 2), UsageError);
  EXPECT_THROW(teacher_targets(logits, 0, 6, 0), UsageError);
}

TEST(Distillation, PairsGiveTheTargetsBack) {
  torch::manual_seed(1);
  const auto targets = teacher_targets(torch::randn({5, 8}), 8, 24, 3);
  EXPECT_TRUE(torch::equal(from_pairs(to_pairs(targets, 3), 24), targets));
}

TEST(Distillation, GradientIsTheDifferenceOfProbabilities) {
  torch::manual_seed(2);
  const auto logits = torch::randn({4, 6}).requires_grad_(), targets = torch::rand({4, 6});
  sigmoid_cross_entropy(logits, targets).backward();
  EXPECT_TRUE(close(logits.grad(), (torch::sigmoid(logits.detach()) - targets) / 4));
}

TEST(Distillation, AStudentLikeItsTeacherHasNothingToLearn) {
  torch::manual_seed(3);
  const auto teacher = torch::randn({4, 6});
  for (const int loss : {0, 1, 2}) {
    const auto student = teacher.clone().requires_grad_();
    const auto value = loss == 0   ? softmax_distillation(student, teacher)
                       : loss == 1 ? hidden_distillation(student, teacher)
                                   : sigmoid_cross_entropy(student, torch::sigmoid(teacher));
    value.backward();
    if (loss < 2) {
      EXPECT_NEAR(value.item<double>(), 0, 1e-6);
    }
    EXPECT_LT(student.grad().abs().max().item<double>(), 1e-6);
  }
  EXPECT_NEAR(hidden_distillation(torch::zeros({4, 6}), teacher).item<double>(), 1, 1e-6);
  EXPECT_THROW(softmax_distillation(teacher, teacher, 0), UsageError);
  EXPECT_THROW(softmax_distillation(teacher, torch::zeros({4, 5})), UsageError);
}

TEST(SelfPacedScale, NormalisesEachVerticalAlone) {
  torch::manual_seed(4);
  SelfPacedScale scale(std::vector<int64_t>{4, 9});
  const auto x = torch::randn({3, 13});
  const auto y = scale->forward(x);
  EXPECT_TRUE(close(y.narrow(1, 0, 4).norm(2, 1), torch::full({3}, 2.0)));
  EXPECT_TRUE(close(y.narrow(1, 4, 9).norm(2, 1), torch::full({3}, 3.0)));
  // Another vertical's logits do not matter, nor does the size of one's own.
  auto other = x.clone();
  other.narrow(1, 4, 9).mul_(7);
  EXPECT_TRUE(close(scale->forward(other), y));
  EXPECT_THROW(scale->forward(torch::zeros({3, 12})), UsageError);
  EXPECT_THROW(SelfPacedScale(std::vector<int64_t>{0}), UsageError);
}

TEST(SelfPacedScale, GradientsAreThoseOfDifferences) {
  torch::manual_seed(5);
  SelfPacedScale scale(std::vector<int64_t>{3, 2});
  scale->to(torch::kFloat64);
  const auto x = torch::randn({2, 5}, torch::kFloat64).requires_grad_();
  const auto weight = torch::randn({2, 5}, torch::kFloat64);
  const auto loss = [&](const torch::Tensor& at) { return (scale->forward(at) * weight).sum(); };
  loss(x).backward();
  for (int64_t i = 0; i < x.numel(); ++i) {
    auto up = x.detach().clone(), down = up.clone();
    up.view(-1)[i] += 1e-5;
    down.view(-1)[i] -= 1e-5;
    const double slope = (loss(up) - loss(down)).item<double>() / 2e-5;
    EXPECT_NEAR(x.grad().view(-1)[i].item<double>(), slope, 1e-5);
  }
  EXPECT_TRUE(scale->forward(torch::zeros({1, 5}, torch::kFloat64)).isfinite().all().item<bool>());
}

}  // namespace
}  // namespace cadre
