#include "cadre/training/optimizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"

namespace cadre {
namespace {

struct Pair {
  torch::Tensor matrix, vector;
};

Pair make_parameters() {
  torch::manual_seed(5);
  return {torch::randn({7, 5}).requires_grad_(), torch::randn({9}).requires_grad_()};
}

void set_gradients(const Pair& pair, int64_t step, double scale) {
  torch::manual_seed(100 + step);
  torch::Tensor matrix = pair.matrix, vector = pair.vector;
  matrix.mutable_grad() = torch::randn({7, 5}) * scale;
  vector.mutable_grad() = torch::randn({9}) * scale;
}

AdamW make_optimizer(const Pair& pair, const AdamWOptions& options) {
  return AdamW({{"matrix", pair.matrix}, {"vector", pair.vector}}, options);
}

TEST(AdamW, AgreesWithTorch) {
  const Pair ours = make_parameters(), theirs = make_parameters();
  AdamW optimizer = make_optimizer(ours, {.clip_norm = 0});
  const auto options = [](double decay) {
    return torch::optim::AdamWOptions(0.01).betas({0.9, 0.95}).eps(1e-8).weight_decay(decay);
  };
  torch::optim::AdamW matrices({theirs.matrix}, options(0.1)), vectors({theirs.vector}, options(0));
  for (int64_t step = 0; step < 20; ++step) {
    set_gradients(ours, step, 1);
    set_gradients(theirs, step, 1);
    optimizer.step(0.01);
    matrices.step();
    vectors.step();
  }
  EXPECT_TRUE(ours.matrix.allclose(theirs.matrix, 1e-5, 1e-6));
  EXPECT_TRUE(ours.vector.allclose(theirs.vector, 1e-5, 1e-6));
  EXPECT_EQ(optimizer.steps(), 20);
}

TEST(AdamW, ScalesAndClipsTheGradient) {
  const Pair a = make_parameters(), b = make_parameters();
  AdamW clipping = make_optimizer(a, {.eps = 1e-2, .clip_norm = 0.5});
  AdamW plain = make_optimizer(b, {.eps = 1e-2, .clip_norm = 0});
  set_gradients(a, 0, 40);
  const double norm = clipping.step(0.1, 0.25);
  set_gradients(b, 0, 40 * 0.25 * 0.5 / norm);
  EXPECT_NEAR(plain.step(0.1), 0.5, 1e-5) << "the norm before clipping was " << norm;
  EXPECT_TRUE(a.matrix.allclose(b.matrix, 1e-5, 1e-6));
  EXPECT_TRUE(a.vector.allclose(b.vector, 1e-5, 1e-6));
}

TEST(AdamW, FreesTheGradients) {
  const Pair pair = make_parameters();
  AdamW optimizer = make_optimizer(pair, {});
  set_gradients(pair, 0, 1);
  optimizer.step(0.1);
  EXPECT_FALSE(pair.matrix.grad().defined());
  optimizer.step(0.1);
  EXPECT_EQ(optimizer.steps(), 2) << "a parameter without gradient is left alone";
}

TEST(AdamW, NamesTheTensorThatIsNotFinite) {
  const Pair pair = make_parameters();
  const torch::Tensor before = pair.matrix.detach().clone();
  AdamW optimizer = make_optimizer(pair, {});
  for (const double poison : {double{NAN}, double{HUGE_VAL}}) {
    set_gradients(pair, 0, 1);
    pair.vector.grad()[3] = poison;
    try {
      optimizer.step(0.1);
      ADD_FAILURE() << "must throw";
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), "the gradient of vector is not finite");
    }
    EXPECT_TRUE(pair.matrix.equal(before));
    EXPECT_EQ(optimizer.steps(), 0);
  }
}

TEST(AdamW, ResumesFromItsState) {
  const Pair a = make_parameters(), b = make_parameters();
  AdamW first = make_optimizer(a, {});
  for (int64_t step = 0; step < 3; ++step) {
    set_gradients(a, step, 1);
    first.step(0.1);
  }
  AdamW second = make_optimizer(b, {});
  {
    const torch::NoGradGuard no_grad;
    torch::Tensor matrix = b.matrix, vector = b.vector;
    matrix.copy_(a.matrix);
    vector.copy_(a.vector);
    NamedTensors from = first.state(), to = second.state();
    for (size_t i = 0; i < from.size(); ++i) {
      EXPECT_EQ(from[i].first, to[i].first);
      to[i].second.copy_(from[i].second);
    }
    second.resume_at(first.steps());
  }
  set_gradients(a, 9, 1);
  set_gradients(b, 9, 1);
  first.step(0.1);
  second.step(0.1);
  EXPECT_TRUE(a.matrix.equal(b.matrix));
  EXPECT_TRUE(a.vector.equal(b.vector));
}

TEST(AdamW, RefusesBadOptions) {
  EXPECT_THROW(AdamW({}, {.beta1 = 1}), UsageError);
  EXPECT_THROW(AdamW({}, {.beta2 = -0.1}), UsageError);
  EXPECT_THROW(AdamW({}, {.eps = 0}), UsageError);
  EXPECT_THROW(AdamW({}, {.weight_decay = NAN}), UsageError);
  EXPECT_THROW(AdamW({}, {.clip_norm = -1}), UsageError);
}

TEST(CosineSchedule, WarmsUpAndDecays) {
  const CosineSchedule schedule = {
      .lr = 2, .warmup_steps = 4, .total_steps = 12, .final_share = 0.25};
  EXPECT_DOUBLE_EQ(schedule.at(0), 0.5);
  EXPECT_DOUBLE_EQ(schedule.at(3), 2);
  EXPECT_DOUBLE_EQ(schedule.at(4), 2);
  EXPECT_DOUBLE_EQ(schedule.at(8), 1.25) << "half way";
  EXPECT_DOUBLE_EQ(schedule.at(12), 0.5);
  EXPECT_DOUBLE_EQ(schedule.at(100), 0.5);
}

TEST(CosineSchedule, WorksWithoutWarmUpAndWithMoreThanThereAreSteps) {
  EXPECT_DOUBLE_EQ((CosineSchedule{.lr = 1, .warmup_steps = 0, .total_steps = 1}.at(0)), 1);
  EXPECT_DOUBLE_EQ((CosineSchedule{.lr = 1, .warmup_steps = 10, .total_steps = 5}.at(4)), 0.5);
}

}  // namespace
}  // namespace cadre
