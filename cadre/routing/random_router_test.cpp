#include "cadre/routing/random_router.h"

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using namespace testing;

RandomExperts growing(int64_t first, int64_t last) {
  return {.schedule = {.first = first, .last = last}, .gate_std = 1.0};
}

TEST(KSchedule, HasThePapersValues) {
  const KSchedule linear = {.first = 8, .last = 16};
  EXPECT_EQ(linear.at(0, 100), 8);
  EXPECT_EQ(linear.at(50, 100), 12);
  EXPECT_EQ(linear.at(100, 100), 16);
  const KSchedule cosine = {.form = KSchedule::Form::kCosine, .first = 8, .last = 16};
  EXPECT_EQ(cosine.at(0, 100), 8);
  EXPECT_EQ(cosine.at(50, 100), 10) << "16 - 8 cos(45 degrees) = 10.34";
  EXPECT_EQ(cosine.at(100, 100), 16);
  const KSchedule exponential = {.form = KSchedule::Form::kExponential, .first = 8, .last = 16};
  EXPECT_EQ(exponential.at(0, 100), 8);
  EXPECT_EQ(exponential.at(50, 100), 14) << "16 - 8 * 0.99^150 = 14.23";
  EXPECT_EQ(exponential.at(100, 100), 16) << "16 - 8 * 0.99^300 = 15.61";
  const KSchedule steps = {.form = KSchedule::Form::kSteps, .first = 1, .last = 16};
  for (const auto& [step, k] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 1}, {19, 1}, {20, 2}, {40, 4}, {60, 8}, {80, 16}, {100, 16}}) {
    EXPECT_EQ(steps.at(step, 100), k) << step;
  }
  EXPECT_EQ((KSchedule{.form = KSchedule::Form::kSteps, .first = 3, .last = 6}.at(99, 100)), 6);
}

TEST(KSchedule, RoundsHalfToEvenAndNeverFalls) {
  const KSchedule linear = {.first = 0, .last = 4};
  EXPECT_EQ(linear.at(1, 8), 0) << "0.5";
  EXPECT_EQ(linear.at(3, 8), 2) << "1.5";
  EXPECT_EQ(linear.at(5, 8), 2) << "2.5";
  for (const char* name : {"constant", "linear", "cosine", "exponential", "steps"}) {
    const KSchedule schedule = {.form = schedule_named(name), .first = 2, .last = 9};
    for (int64_t t = 0; t < 50; ++t) EXPECT_LE(schedule.at(t, 50), schedule.at(t + 1, 50)) << name;
  }
  EXPECT_THROW(schedule_named("square"), UsageError);
}

TEST(RandomRouter, HasTheCommonProperties) {
  RandomRouter router(6, 8, growing(3, 3));
  const RouteInput input = random_input(17, 6);
  expect_well_formed(router.route(input));
  expect_token_equivariant(router, input);
  expect_batch_invariant(router, input);
  expect_routes_nothing(router, input);
  expect_ignores_padding(router, input);
  RandomRouter other(6, 8, growing(3, 3));
  expect_survives_saving(router, other, input);
}

TEST(RandomRouter, LearnsNothingButHandsTheGradientOn) {
  RandomRouter router(6, 8, growing(4, 4));
  EXPECT_TRUE(router.parameters().empty()) << "neither optimiser nor weight decay sees it";
  RouteInput input = random_input(5, 6);
  input.hidden.requires_grad_();
  mixed_weights(router.route(input), random_tensor({5, 8}, 2)).backward();
  EXPECT_GT(input.hidden.grad().abs().sum().item<double>(), 0);
}

TEST(RandomRouter, GradientOfTheInputAgreesWithDifferences) {
  RandomRouter router(6, 8, growing(4, 4));
  RouteInput input = random_input(5, 6);
  input.hidden.requires_grad_();
  expect_weight_gradient(router, input, input.hidden);
}

TEST(RandomRouter, WeightsSumToOneAtEveryK) {
  RandomRouter router(6, 8, growing(1, 8));
  RouteInput input = random_input(9, 6);
  for (int64_t k = 1; k <= 8; ++k) {
    input.knobs.k = k;
    const Routing routing = router.route(input);
    EXPECT_EQ(routing.pairs(), 9 * k);
    EXPECT_NEAR(routing.weight.sum().item<double>(), 9, 1e-5);
  }
  const Routing all = router.route(input);
  const auto all_rows = rows(all);
  for (size_t t = 0; t < 9; ++t) {
    for (const Pair& pair : all_rows[t]) {
      EXPECT_NEAR(pair.weight, all.probs[static_cast<int64_t>(t)][pair.expert].item<float>(), 1e-6)
          << "with all experts the softmax over all";
    }
  }
}

TEST(RandomRouter, KGrowsInTrainingAndIsTheLastInEvaluation) {
  RandomRouter router(6, 8, growing(4, 8));
  RouteInput input = random_input(1, 6);
  EXPECT_EQ(router.route(input).pairs(), 8);
  input.mode = RouteMode::kTrain;
  input.total_steps = 100;
  for (const auto& [step, k] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 4}, {50, 6}, {100, 8}}) {
    input.step = step;
    EXPECT_EQ(router.route(input).pairs(), k) << step;
  }
}

TEST(RandomRouter, BadOptionsAreNamed) {
  EXPECT_THROW(RandomRouter(4, 4, growing(0, 4)), UsageError);
  EXPECT_THROW(RandomRouter(4, 4, growing(1, 5)), UsageError);
  RandomExperts none = growing(1, 4);
  none.gate_std = 0;
  EXPECT_THROW(RandomRouter(4, 4, none), UsageError);
}

}  // namespace
}  // namespace cadre
