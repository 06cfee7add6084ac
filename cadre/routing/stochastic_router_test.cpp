#include "cadre/routing/stochastic_router.h"

#include <gtest/gtest.h>

#include <set>

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using testing::random_input;
using testing::rows;

RouteInput three_sequences(RouteMode mode = RouteMode::kTrain) {
  RouteInput input = random_input(12, 4);
  input.sequence = torch::arange(3).repeat_interleave(4);
  input.mode = mode;
  return input;
}

std::vector<int32_t> experts_of(const Routing& routing) {
  std::vector<int32_t> ids;
  for (const auto& row : rows(routing)) ids.push_back(row.at(0).expert);
  return ids;
}

size_t distinct(const std::vector<int32_t>& ids) {
  return std::set<int32_t>(ids.begin(), ids.end()).size();
}

TEST(Stochastic, OneExpertForTheBatchASequenceOrAToken) {
  RouteInput input = random_input(64, 4);
  input.sequence = torch::arange(8).repeat_interleave(8);
  const auto draw = [&](DrawScope scope) {
    return experts_of(StochasticRouter(64, {.eval = scope}).route(input));
  };
  EXPECT_EQ(distinct(draw(DrawScope::kBatch)), 1);
  const auto by_sequence = draw(DrawScope::kSequence);
  EXPECT_GT(distinct(by_sequence), 4);
  for (size_t t = 0; t < 64; ++t) EXPECT_EQ(by_sequence[t], by_sequence[t / 8 * 8]);
  EXPECT_GT(distinct(draw(DrawScope::kToken)), 20);
}

TEST(Stochastic, DrawsAreUniform) {
  StochasticRouter router(5, {});
  RouteInput input = three_sequences();
  std::vector<double> count(5);
  constexpr int kDraws = 2000;
  for (input.step = 0; input.step < kDraws; ++input.step) {
    ++count[experts_of(router.route(input))[0]];
  }
  double chi_square = 0;
  for (const double n : count)
    chi_square += (n - kDraws / 5.0) * (n - kDraws / 5.0) / (kDraws / 5.0);
  EXPECT_LT(chi_square, 18.5);  // 0.1% of four degrees of freedom
}

TEST(Stochastic, KeyedBySeedStepLayerAndDraw) {
  StochasticRouter router(1000, {});
  RouteInput input = three_sequences();
  testing::expect_deterministic(router, input);
  const auto first = experts_of(router.route(input));
  for (int64_t* key : {&input.step, &input.layer, &input.draw}) {
    ++*key;
    EXPECT_NE(experts_of(router.route(input)), first);
    --*key;
  }
  input.seed = 1;
  EXPECT_NE(experts_of(router.route(input)), first);
}

TEST(Stochastic, KnobKDealsDistinctExpertsThatAverage) {
  StochasticRouter router(4, {});
  RouteInput input = three_sequences(RouteMode::kEval);
  input.knobs.k = 4;
  for (const auto& row : rows(router.route(input))) {
    std::set<int32_t> ids;
    for (const auto& pair : row) {
      ids.insert(pair.expert);
      EXPECT_FLOAT_EQ(pair.weight, 0.25F);
    }
    EXPECT_EQ(ids.size(), 4);
  }
}

TEST(Stochastic, DegenerateInputs) {
  StochasticRouter router(4, {}), one(1, {});
  testing::expect_well_formed(router.route(three_sequences()));
  testing::expect_routes_nothing(router, three_sequences());
  testing::expect_ignores_padding(router, three_sequences(RouteMode::kEval));
  EXPECT_EQ(one.route(three_sequences()).load().item<int64_t>(), 12);
  EXPECT_TRUE(router.parameters().empty());
}

TEST(Stochastic, RefusesInOneLine) {
  EXPECT_THROW(StochasticRouter(0, {}), UsageError);
  StochasticRouter router(4, {});
  RouteInput input = three_sequences();
  for (const int64_t k : {0, 5}) {
    input.knobs.k = k;
    EXPECT_THROW(router.route(input), UsageError);
  }
}

}  // namespace
}  // namespace cadre
