#include "cadre/objectives/balance_forms.h"

#include <gtest/gtest.h>

#include "cadre/nn/test_gradients.h"
#include "cadre/routing/null_experts_router.h"
#include "cadre/routing/router_test_kit.h"
#include "cadre/routing/top_p_router.h"

namespace cadre {
namespace {

using namespace testing;

/// Probabilities, and rows that the test chooses.
Routing routing_with(const torch::Tensor& probs, int64_t experts, const torch::Tensor& ids,
                     const torch::Tensor& valid = {}) {
  Routing routing = routing_from_dense(experts, ids, torch::ones_like(ids, torch::kFloat32), valid);
  routing.probs = probs;
  return routing;
}

torch::Tensor ids_of(std::vector<int64_t> ids, int64_t k) {
  return torch::tensor(ids, torch::kInt64).view({-1, k});
}

TEST(BalanceForms, AreOneOrMeanKWhenUniform) {
  const auto ids = ids_of({0, 1, 2, 3, 0, 1, 2, 3}, 2);
  const Routing even = routing_with(torch::full({4, 4}, 0.25F), 4, ids);
  EXPECT_NEAR(balance_per_token(even).item<double>(), 2.0, 1e-6);
  EXPECT_NEAR(balance_pooled_nulls(even).item<double>(), 1.0, 1e-6);
  const Routing skewed = routing_with(torch::full({4, 4}, 0.25F), 4, ids_of({0, 0, 0, 0}, 1));
  EXPECT_NEAR(balance_gshard(skewed).item<double>(), 1.0, 1e-6) << "uniform Q, whatever the load";
}

TEST(BalanceForms, NullsCountTogether) {
  // Two true experts and two nulls; four slots went to expert 0, 0, null 2, null 2.
  const auto probs = torch::tensor({0.5F, 0.1F, 0.3F, 0.1F}).repeat({2, 1});
  const Routing routing = routing_with(probs, 2, ids_of({0, 2, 0, 2}, 2));
  EXPECT_EQ(routing.null, 2);
  // f = 1/2, 0, 1/4, 1/4: the second null never had a token.
  EXPECT_NEAR(balance_pooled_nulls(routing).item<double>(),
              4 * (0.5 * 0.5 + 0.25 * 0.3 + 0.25 * 0.1), 1e-6);
}

TEST(BalanceForms, OnlyTheFirstChoiceCountsForGshard) {
  const auto probs = torch::tensor({0.6F, 0.4F}).repeat({2, 1});
  EXPECT_NEAR(balance_gshard(routing_with(probs, 2, ids_of({0, 1, 0, 1}, 2))).item<double>(),
              2 * 0.6, 1e-6);
}

TEST(BalanceForms, PaddingEntersNoStatistic) {
  const auto probs = torch::tensor({0.6F, 0.4F, 0.4F, 0.6F, 0.9F, 0.1F}).view({3, 2});
  const auto ids = ids_of({0, 1, 1}, 1);
  const auto valid = torch::tensor({true, true, false});
  const Routing padded = routing_with(probs, 2, ids, valid);
  const Routing alone = routing_with(probs.slice(0, 0, 2), 2, ids.slice(0, 0, 2));
  for (const auto& form : {balance_per_token, balance_pooled_nulls, balance_gshard}) {
    EXPECT_NEAR(form(padded).item<double>(), form(alone).item<double>(), 1e-6);
  }
}

TEST(BalanceForms, EmptyAndUnscoredRoutingsGiveZero) {
  const auto none = torch::empty({0, 1}, torch::kInt64);
  const Routing empty = routing_with(torch::empty({0, 3}).requires_grad_(), 3, none);
  const Routing unscored = routing_from_dense(3, ids_of({1}, 1), torch::ones({1, 1}));
  for (const auto& form : {balance_per_token, balance_pooled_nulls, balance_gshard}) {
    EXPECT_EQ(form(empty).item<double>(), 0);
    EXPECT_EQ(form(unscored).item<double>(), 0);
  }
}

TEST(BalanceForms, TheLoadCarriesNoGradientAndTheProbabilitiesDo) {
  const auto logits = random_tensor({6, 5}, 3);
  const auto value = [](const torch::Tensor& l) {
    const Routing routing =
        routing_with(torch::softmax(l, 1), 3, ids_of({0, 3, 1, 2, 0, 4, 2, 1, 4, 0, 3, 1}, 2));
    return balance_pooled_nulls(routing) + balance_gshard(routing) + balance_per_token(routing);
  };
  auto x = logits.clone().requires_grad_();
  value(x).backward();
  const auto direction = random_tensor({6, 5}, 4);
  const double numeric =
      (value(logits + 1e-2 * direction) - value(logits - 1e-2 * direction)).item<double>() / 2e-2;
  EXPECT_NEAR((x.grad() * direction).sum().item<double>(), numeric, 2e-3);
}

TEST(BalanceForms, ComeByNameOfTheForm) {
  EXPECT_FALSE(balance_of(BalanceForm::kNone, 1));
  for (const auto form : {BalanceForm::kShare, BalanceForm::kPerToken, BalanceForm::kPooledNulls}) {
    const auto objective = balance_of(form, 0.5);
    ASSERT_TRUE(objective);
    EXPECT_EQ(objective->name, "balance");
    const Routing even = routing_with(torch::full({2, 2}, 0.5F), 2, ids_of({0, 1, 1, 0}, 2));
    EXPECT_NEAR(objective->evaluate(even, {}).item<double>(),
                form == BalanceForm::kPerToken ? 2 : 1, 1e-6);
  }
}

}  // namespace
}  // namespace cadre
