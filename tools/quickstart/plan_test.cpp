#include "tools/quickstart/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "cadre/base/error.h"
#include "tools/quickstart/summary.h"

namespace cadre {
namespace {

TEST(Plan, StepsThatFit) {
  EXPECT_EQ(steps_within(100, 1, 10, 1000), 90);
  EXPECT_EQ(steps_within(100, 1, 10, 50), 50) << "never more than wanted";
  EXPECT_EQ(steps_within(1, 10, 0, 50), 1) << "at least one";
  EXPECT_EQ(steps_within(100, 0, 0, 50), 50) << "not measured";
}

TEST(Plan, TwinHasTheSameActiveParametersUpToTheRouter) {
  QuickstartOptions options;
  options.model.vocabulary = options.data.vocabulary;
  const ModelConfig& moe = options.model;
  const int64_t router = moe.layers * moe.experts * moe.hidden;
  EXPECT_EQ(count_parameters(moe).active - router, count_parameters(dense_twin(moe)).total);
}

TEST(Plan, ImpossibleOptionsAreRefused) {
  QuickstartOptions options;
  check_options(options);
  options.model.experts = 0;
  EXPECT_THROW(check_options(options), UsageError);
  options = {};
  options.model.experts_per_token = options.model.experts + 1;
  EXPECT_THROW(check_options(options), UsageError);
  options = {};
  options.training.length = options.model.max_positions + 1;
  EXPECT_THROW(check_options(options), UsageError);
}

TEST(Summary, SameTimeIsTheFasterModels) {
  const TrainResult moe{
      .tokens = 20, .train_seconds = 10, .curve = {{1, 10, 5, 4}, {2, 20, 10, 2}}};
  const TrainResult dense{
      .tokens = 20, .train_seconds = 6, .curve = {{1, 10, 3, 4}, {2, 20, 6, 3}}};
  const SameTime time = same_time(moe, dense);
  EXPECT_DOUBLE_EQ(time.seconds, 6);
  EXPECT_DOUBLE_EQ(time.dense, 3);
  EXPECT_NEAR(time.moe, 3.6, 1e-12);
}

}  // namespace
}  // namespace cadre
