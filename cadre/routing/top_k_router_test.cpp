#include "cadre/routing/top_k_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;
using testing::Pair;
using testing::random_input;
using testing::random_tensor;
using testing::rows;

constexpr int64_t kHidden = 8;

/// A router whose weights are N(0, 1), so that scores differ clearly.
std::shared_ptr<TopKRouter> make_router(int64_t experts, const TopK& options, uint64_t seed = 3) {
  auto router = std::make_shared<TopKRouter>(kHidden, experts, options);
  torch::NoGradGuard no_grad;
  router->weight.copy_(random_tensor(router->weight.sizes(), seed));
  return router;
}

/// A router of `experts` inputs and experts that reads logits directly from the input.
std::shared_ptr<TopKRouter> make_identity_router(int64_t experts, const TopK& options) {
  auto router = std::make_shared<TopKRouter>(experts, experts, options);
  torch::NoGradGuard no_grad;
  router->weight.copy_(torch::eye(experts));
  return router;
}

RouteInput logits(std::vector<float> values, int64_t experts) {
  return {.hidden = torch::tensor(values).view({-1, experts})};
}

std::vector<int32_t> experts_of(const std::vector<Pair>& row) {
  std::vector<int32_t> ids;
  for (const Pair& pair : row) ids.push_back(pair.expert);
  return ids;
}

float weight_sum(const std::vector<Pair>& row) {
  float sum = 0;
  for (const Pair& pair : row) sum += pair.weight;
  return sum;
}

struct Variant {
  std::string name;
  int64_t experts;
  TopK options;
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

std::vector<Variant> variants() {
  return {
      {"softmax_raw", 8, {.k = 2}},
      {"softmax_normalized", 8, {.k = 3, .weights = Weights::kNormalized}},
      {"sigmoid_raw", 8, {.k = 2, .squash = Squash::kSigmoid}},
      {"deepseek_v2", 12, {.k = 3, .scale = 16, .groups = 4, .groups_used = 2}},
      {"deepseek_v3",
       12,
       {.k = 4,
        .squash = Squash::kSigmoid,
        .weights = Weights::kNormalized,
        .scale = 2.5,
        .groups = 4,
        .groups_used = 2,
        .bias_update = 0.001}},
      {"all_experts", 4, {.k = 4}},
      {"one_expert", 1, {.k = 1}},
  };
}

class RouterProperties : public ::testing::TestWithParam<Variant> {
 protected:
  std::shared_ptr<TopKRouter> router() const {
    return make_router(GetParam().experts, GetParam().options);
  }
};
INSTANTIATE_TEST_SUITE_P(TopK, RouterProperties, ::testing::ValuesIn(variants()),
                         [](const auto& info) { return info.param.name; });

TEST_P(RouterProperties, WellFormedWithKDistinctExpertsATokenAndStatedSums) {
  const Variant& variant = GetParam();
  const Routing routing = router()->route(random_input(37, kHidden));
  testing::expect_well_formed(routing);
  for (const auto& row : rows(routing)) {
    const auto ids = experts_of(row);
    EXPECT_EQ(std::set<int32_t>(ids.begin(), ids.end()).size(), variant.options.k);
    const auto scale = static_cast<float>(variant.options.scale);
    if (variant.options.weights == Weights::kNormalized) {
      EXPECT_NEAR(weight_sum(row), scale, 1e-5);
    } else if (variant.options.squash == Squash::kSoftmax) {
      EXPECT_LE(weight_sum(row), scale * 1.00001F);
    }
  }
}

TEST_P(RouterProperties, PermutingTokensPermutesRows) {
  testing::expect_token_equivariant(*router(), random_input(23, kHidden));
}

TEST_P(RouterProperties, BatchOfOneEqualsRowOfABatch) {
  testing::expect_batch_invariant(*router(), random_input(9, kHidden));
}

TEST_P(RouterProperties, PermutingExpertsPermutesIds) {
  const Variant& variant = GetParam();
  // Whole groups move, and experts within them.
  const int64_t size = variant.experts / variant.options.groups;
  const auto order = torch::arange(variant.experts).view({-1, size}).flip({0, 1}).reshape(-1);
  const auto original = router(), permuted = router();
  {
    torch::NoGradGuard no_grad;
    permuted->weight.copy_(original->weight.index_select(0, order));
  }
  const RouteInput input = random_input(23, kHidden);
  auto expected = rows(original->route(input));
  for (auto& row : expected) {
    // `flip` is its own inverse.
    for (Pair& pair : row) pair.expert = order[pair.expert].item<int32_t>();
  }
  testing::expect_same_rows(rows(permuted->route(input)), expected);
}

TEST_P(RouterProperties, WeightGradientByCentralDifferences) {
  const auto router = this->router();
  testing::expect_weight_gradient(*router, random_input(3, kHidden, 8), router->weight);
}

TEST_P(RouterProperties, EmptyBatch) {
  const auto router = this->router();
  const Routing routing = router->route(random_input(0, kHidden));
  testing::expect_well_formed(routing);
  EXPECT_EQ(routing.tokens(), 0);
  (routing.weight.sum() + routing.probs.sum()).backward();
  EXPECT_EQ(router->weight.grad().abs().sum().item<float>(), 0);
}

TEST_P(RouterProperties, SameBitsTwice) {
  const RouteInput input = random_input(23, kHidden);
  EXPECT_EQ(rows(router()->route(input)), rows(router()->route(input)));
}

TEST_P(RouterProperties, SavesAndLoads) {
  const auto original = router();
  original->after_step(torch::arange(GetParam().experts));
  torch::serialize::OutputArchive out;
  original->save(out);
  std::ostringstream bytes;
  out.save_to(bytes);
  std::istringstream stream(bytes.str());
  torch::serialize::InputArchive in;
  in.load_from(stream);
  const auto loaded = make_router(GetParam().experts, GetParam().options, 99);
  loaded->load(in);
  const RouteInput input = random_input(23, kHidden);
  EXPECT_EQ(rows(loaded->route(input)), rows(original->route(input)));
}

TEST(TopKRouter, SoftmaxClosedForm) {
  const auto router = make_identity_router(3, {.k = 2});
  const auto row = rows(router->route(logits({0.0F, std::log(2.0F), std::log(5.0F)}, 3)))[0];
  EXPECT_EQ(experts_of(row), (std::vector<int32_t>{2, 1}));
  EXPECT_NEAR(row[0].weight, 5.0 / 8, 1e-6);
  EXPECT_NEAR(row[1].weight, 2.0 / 8, 1e-6);
}

TEST(TopKRouter, NormalizedAndScaledClosedForm) {
  const auto router =
      make_identity_router(3, {.k = 2, .weights = Weights::kNormalized, .scale = 2.5});
  const auto row = rows(router->route(logits({0.0F, std::log(2.0F), std::log(5.0F)}, 3)))[0];
  EXPECT_NEAR(row[0].weight, 2.5 * 5 / 7, 1e-6);
  EXPECT_NEAR(row[1].weight, 2.5 * 2 / 7, 1e-6);
}

TEST(TopKRouter, SigmoidClosedForm) {
  const auto router = make_identity_router(2, {.k = 1, .squash = Squash::kSigmoid});
  const auto row = rows(router->route(logits({0.0F, std::log(3.0F)}, 2)))[0];
  EXPECT_EQ(row[0].expert, 1);
  EXPECT_NEAR(row[0].weight, 0.75, 1e-6);
}

TEST(TopKRouter, NormalizedSumStaysFiniteWhenAllScoresVanish) {
  const auto router = make_identity_router(
      2, {.k = 2, .squash = Squash::kSigmoid, .weights = Weights::kNormalized});
  testing::expect_well_formed(router->route(logits({-200.0F, -200.0F}, 2)));
}

TEST(TopKRouter, TiesGoToTheLowerExpert) {
  const auto router = make_identity_router(6, {.k = 3});
  EXPECT_EQ(experts_of(rows(router->route(logits({1, 2, 1, 2, 1, 1}, 6)))[0]),
            (std::vector<int32_t>{1, 3, 0}));
}

TEST(TopKRouter, AllTokensMayChooseOneExpert) {
  const auto router = make_identity_router(4, {.k = 1});
  RouteInput input{.hidden = torch::zeros({50, 4})};
  input.hidden.select(1, 2).fill_(3.0);
  const Routing routing = router->route(input);
  EXPECT_TRUE(torch::equal(routing.load(), torch::tensor({0, 0, 50, 0}, torch::kInt64)));
}

TEST(TopKRouter, NormalizedTopOneHasNoTaskGradient) {
  const auto router = make_router(4, {.k = 1, .weights = Weights::kNormalized});
  router->route(random_input(5, kHidden)).weight.sum().backward();
  EXPECT_LT(router->weight.grad().abs().max().item<float>(), 1e-6);
}

TEST(TopKRouter, GroupsAreChosenByTheirMaximum) {
  // Groups {0,1}, {2,3}, {4,5}: maxima 5, 4, 3; the second best of group 2 beats none of them.
  const auto router = make_identity_router(6, {.k = 3, .groups = 3, .groups_used = 2});
  const auto row = rows(router->route(logits({5, 0, 4, 1, 3, 3}, 6)))[0];
  EXPECT_EQ(experts_of(row), (std::vector<int32_t>{0, 2, 3}));
}

TEST(TopKRouter, BalancedGroupsAreChosenByTheSumOfTheirTwoBest) {
  const TopK options{
      .k = 2, .squash = Squash::kSigmoid, .groups = 3, .groups_used = 1, .bias_update = 0.001};
  // sigmoid: group 0 sums 0.99 + 0.12, group 2 sums 0.95 + 0.95.
  const auto router = make_identity_router(6, options);
  const auto row = rows(router->route(logits({5, -2, 4, -3, 3, 3}, 6)))[0];
  EXPECT_EQ(experts_of(row), (std::vector<int32_t>{4, 5}));
}

TEST(TopKRouter, BiasSelectsButDoesNotWeigh) {
  const auto router = make_identity_router(3, {.k = 1, .bias_update = 0.001});
  router->e_score_correction_bias.copy_(torch::tensor({0.9, 0.0, 0.0}));
  const auto row = rows(router->route(logits({0.0F, std::log(2.0F), std::log(5.0F)}, 3)))[0];
  EXPECT_EQ(row[0].expert, 0);
  EXPECT_NEAR(row[0].weight, 1.0 / 8, 1e-6);
}

TEST(TopKRouter, AfterStepMovesTheBiasTowardsTheMeanLoad) {
  const auto router = make_router(3, {.k = 1, .bias_update = 0.25});
  const auto load = torch::tensor({9, 3, 0}, torch::kInt64);
  router->after_step(load);
  EXPECT_TRUE(torch::allclose(router->e_score_correction_bias, torch::tensor({-0.25, 0.25, 0.25})));
  for (int step = 0; step < 10; ++step) router->after_step(load);
  EXPECT_TRUE(torch::allclose(router->e_score_correction_bias, torch::tensor({-1.0, 1.0, 1.0})));
}

TEST(TopKRouter, BiasBalancesSkewedInput) {
  const auto router = make_router(8, {.k = 2, .squash = Squash::kSigmoid, .bias_update = 0.01});
  RouteInput input = random_input(512, kHidden);
  input.hidden += 0.7;
  const double before = stats_of(router->route(input)).max_over_mean_load;
  for (int step = 0; step < 200; ++step) router->after_step(router->route(input).load());
  const double after = stats_of(router->route(input)).max_over_mean_load;
  EXPECT_GT(before, 1.6);
  EXPECT_LT(after, 1.15);
}

TEST(TopKRouter, CapacityDropsAndCounts) {
  const auto router = make_identity_router(4, {.k = 1, .capacity_factor = 1.0});
  EXPECT_FALSE(router->causal());
  EXPECT_FALSE(router->batch_invariant());
  RouteInput input{.hidden = torch::zeros({8, 4})};
  const Routing routing = router->route(input);
  testing::expect_well_formed(routing);
  EXPECT_EQ(routing.pairs(), 2);
  EXPECT_EQ(routing.dropped, 6);
  EXPECT_DOUBLE_EQ(stats_of(routing).share_empty, 0.75);
}

TEST(TopKRouter, CapacityByScoreKeepsTheMostAffine) {
  const auto router = make_identity_router(2, {.k = 1,
                                               .weights = Weights::kNormalized,
                                               .capacity_factor = 1.0,
                                               .drop_order = DropOrder::kScore});
  const auto kept = rows(router->route(logits({1, 0, 2, 0, 3, 0, 4, 0}, 2)));
  EXPECT_TRUE(kept[0].empty() && kept[1].empty());
  EXPECT_EQ(kept[2].size() + kept[3].size(), 2);
}

TEST(TopKRouter, PaddingHasNoExpertsAndNoShareInTheCapacity) {
  const auto router = make_identity_router(2, {.k = 1, .capacity_factor = 1.0});
  RouteInput input{.hidden = torch::zeros({6, 2})};
  input.padding = torch::tensor({true, false, false, true, true, true});
  const Routing routing = router->route(input);
  EXPECT_EQ(experts_of(rows(routing)[1]), std::vector<int32_t>{0});
  EXPECT_EQ(routing.pairs(), 1);
  EXPECT_EQ(routing.dropped, 1);
}

TEST(TopKRouter, KnobsOverride) {
  const auto router = make_router(8, {.k = 2});
  RouteInput input = random_input(16, kHidden);
  input.knobs = {.k = 3, .capacity_factor = 0.5};
  const Routing routing = router->route(input);
  EXPECT_EQ(routing.pairs() + routing.dropped, 16 * 3);
  EXPECT_LE(routing.load().max().item<int64_t>(), 3);
  input.knobs = {.k = 9};
  EXPECT_THROW(router->route(input), UsageError);
  input.knobs = {.k = 0};
  EXPECT_THROW(router->route(input), UsageError);
  input.knobs = {.capacity_factor = -1.0};
  EXPECT_THROW(router->route(input), UsageError);
}

TEST(TopKRouter, NotFiniteLogitsNameTheLayer) {
  const auto router = make_router(4, {.k = 2});
  for (const float bad : {NAN, INFINITY}) {
    RouteInput input = random_input(5, kHidden);
    input.layer = 7;
    input.hidden[3][2] = bad;
    try {
      router->route(input);
      FAIL() << "no error";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("layer 7"));
    }
  }
}

TEST(TopKRouter, RefusesImpossibleOptions) {
  const auto make = [](int64_t hidden, int64_t experts, const TopK& options) {
    return [=] { TopKRouter router(hidden, experts, options); };
  };
  EXPECT_THROW(make(0, 4, {})(), UsageError);
  EXPECT_THROW(make(8, 0, {})(), UsageError);
  EXPECT_THROW(make(8, 4, {.k = 0})(), UsageError);
  EXPECT_THROW(make(8, 4, {.k = 5})(), UsageError);
  EXPECT_THROW(make(8, 4, {.groups = 3})(), UsageError);
  EXPECT_THROW(make(8, 4, {.k = 3, .groups = 2, .groups_used = 1})(), UsageError);
  EXPECT_THROW(make(8, 4, {.groups = 2, .groups_used = 3})(), UsageError);
  EXPECT_THROW(make(8, 4, {.bias_update = -1.0})(), UsageError);
  EXPECT_THROW(make(8, 4, {.capacity_factor = 0.0})(), UsageError);
  EXPECT_THROW(make(8, 4, {.capacity_factor = NAN})(), UsageError);
}

TEST(TopKRouter, RefusesHiddenStatesOfAnotherWidth) {
  const auto router = make_router(4, {.k = 2});
  EXPECT_THROW(router->route(random_input(5, kHidden + 1)), UsageError);
}

}  // namespace
}  // namespace cadre
