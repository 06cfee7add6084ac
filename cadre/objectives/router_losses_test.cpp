#include "cadre/objectives/router_losses.h"

#include <gtest/gtest.h>

#include <cmath>

#include "cadre/base/error.h"
#include "cadre/objectives/objectives.h"
#include "cadre/routing/router_test_kit.h"
#include "cadre/routing/top_k_router.h"

namespace cadre {
namespace {

using namespace testing;

/// Top-2 of logits [T, E] as a routing.
Routing routing_of_logits(const torch::Tensor& logits, const torch::Tensor& valid = {}) {
  const auto ids = std::get<1>(logits.detach().topk(2, 1));
  const auto probs = torch::softmax(logits, 1);
  Routing routing = routing_from_dense(logits.size(1), ids, probs.gather(1, ids), valid);
  routing.logits = logits;
  routing.probs = probs;
  return routing;
}

double phi(double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); }

TEST(RouterLosses, EntropyOfKnownRows) {
  EXPECT_NEAR(router_entropy(routing_of_logits(torch::zeros({3, 4}))).item<double>(), std::log(4),
              1e-6);
  const auto certain = torch::tensor({200.0F, 0.0F, 0.0F}).view({1, 3}).requires_grad_();
  const auto loss = router_entropy(routing_of_logits(certain));
  loss.backward();
  EXPECT_NEAR(loss.item<double>(), 0, 1e-6) << "0 log 0 is 0";
  EXPECT_TRUE(certain.grad().isfinite().all().item<bool>());
}

TEST(RouterLosses, EntropysGradientIsThePapers) {
  const auto logits = random_tensor({5, 4}, 2).requires_grad_();
  const Routing routing = routing_of_logits(logits);
  router_entropy(routing).backward();
  const auto p = routing.probs.detach(), log_p = p.log();
  const auto entropy = -(p * log_p).sum(1, true);
  EXPECT_TRUE(logits.grad().allclose(-p * (log_p + entropy) / 5, 1e-4, 1e-6));
}

TEST(RouterLosses, ImportanceIsTheSquaredVariation) {
  const auto probs = torch::tensor({0.75F, 0.25F, 0.25F, 0.75F}).view({2, 2});
  EXPECT_NEAR(importance_loss(routing_of_logits(probs.log())).item<double>(), 0, 1e-6);
  const auto skewed = torch::tensor({0.75F, 0.25F}).view({1, 2});
  EXPECT_NEAR(importance_loss(routing_of_logits(skewed.log())).item<double>(), 0.25, 1e-5);
}

TEST(RouterLosses, LoadIsTheChanceToWinAgain) {
  const auto logits = torch::tensor({2.0F, 1.0F, 0.5F}).view({1, 3});
  const double std = 0.5, least = 1.0;
  double mean = 0, square = 0;
  for (const double l : {2.0, 1.0, 0.5}) {
    const double chance = 1 - phi((least - l) / std);
    mean += chance / 3;
    square += chance * chance / 3;
  }
  EXPECT_NEAR(load_loss(routing_of_logits(logits), std).item<double>(),
              (square - mean * mean) / (mean * mean), 1e-5);
}

TEST(RouterLosses, LoadTakesItsThresholdFromTheNoisyScores) {
  Routing routing = routing_of_logits(torch::tensor({2.0F, 1.0F, 0.5F}).view({1, 3}));
  const double clean = load_loss(routing, 0.5).item<double>();
  routing.scores = torch::tensor({2.0F, 1.6F, 0.5F}).view({1, 3});
  EXPECT_NE(load_loss(routing, 0.5).item<double>(), clean);
}

TEST(RouterLosses, GradientsAgreeWithDifferences) {
  const auto logits = random_tensor({6, 4}, 5);
  const Routing chosen = routing_of_logits(logits);
  const auto value = [&](const torch::Tensor& l) {
    Routing routing = chosen;
    routing.scores = chosen.logits;  // the threshold is a constant
    routing.logits = l;
    routing.probs = torch::softmax(l, 1);
    return router_entropy(routing) + importance_loss(routing) + load_loss(routing, 0.7);
  };
  auto x = logits.clone().requires_grad_();
  value(x).backward();
  const auto direction = random_tensor({6, 4}, 6);
  const double numeric =
      (value(logits + 1e-2 * direction) - value(logits - 1e-2 * direction)).item<double>() / 2e-2;
  EXPECT_NEAR((x.grad() * direction).sum().item<double>(), numeric, 2e-3);
}

TEST(RouterLosses, PaddingEntersNoStatistic) {
  const auto logits = random_tensor({5, 4}, 7);
  const Routing padded = routing_of_logits(logits, torch::tensor({true, true, true, false, false}));
  const Routing alone = routing_of_logits(logits.slice(0, 0, 3));
  EXPECT_NEAR(router_entropy(padded).item<double>(), router_entropy(alone).item<double>(), 1e-6);
  EXPECT_NEAR(importance_loss(padded).item<double>(), importance_loss(alone).item<double>(), 1e-6);
  EXPECT_NEAR(load_loss(padded, 1).item<double>(), load_loss(alone, 1).item<double>(), 1e-6);
}

TEST(Objectives, AllAreFiniteOnEveryRouting) {
  const auto logits = torch::zeros({0, 4}).requires_grad_();
  for (const ObjectiveEntry& entry : objectives_list()) {
    const RoutingObjective objective = make_objective(entry.name, entry.coefficient);
    EXPECT_EQ(objective.evaluate(routing_of_logits(logits), {}).item<double>(), 0) << entry.name;
    const Routing bare =
        routing_from_dense(4, torch::zeros({3, 1}, torch::kInt64), torch::ones({3, 1}));
    EXPECT_EQ(objective.evaluate(bare, {}).item<double>(), 0) << entry.name;
    const auto one = torch::full({3, 4}, -30.0F).index_put_({torch::indexing::Slice(), 1}, 30);
    const auto all_on_one = one.clone().requires_grad_();
    const auto value = objective.evaluate(routing_of_logits(all_on_one), {});
    EXPECT_TRUE(std::isfinite(value.item<double>())) << entry.name;
    value.backward();
    EXPECT_TRUE(all_on_one.grad().isfinite().all().item<bool>()) << entry.name;
  }
}

TEST(Objectives, AnUnknownNameNamesTheNearest) {
  try {
    make_objective("entropy_router", 1);
    FAIL();
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("unknown objective 'entropy_router'"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace cadre
