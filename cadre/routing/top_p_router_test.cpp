#include "cadre/routing/top_p_router.h"

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"
#include "cadre/routing/selection.h"

namespace cadre {
namespace {

using namespace testing;

TopPRouter random_router(int64_t hidden, int64_t experts, const TopP& options) {
  TopPRouter router(hidden, experts, options);
  randomize(router);
  return router;
}

std::vector<int64_t> counts_of(const Routing& routing) {
  std::vector<int64_t> counts;
  for (const auto& row : rows(routing)) counts.push_back(static_cast<int64_t>(row.size()));
  return counts;
}

TEST(RowPrefix, KeepsTheExpertThatCrossesP) {
  const auto probs = torch::tensor({0.5F, 0.25F, 0.125F, 0.125F}).view({1, 4});
  const auto kept = [&](double p) { return row_prefix(probs, p).ids.size(0); };
  EXPECT_EQ(kept(0), 1);
  EXPECT_EQ(kept(0.4), 1) << "one expert alone is past p";
  EXPECT_EQ(kept(0.5), 2) << "at p is not past it";
  EXPECT_EQ(kept(0.6), 2);
  EXPECT_EQ(kept(0.8), 3);
  EXPECT_EQ(kept(1), 4);
}

TEST(RowPrefix, OfUniformProbabilitiesIsTheFloorPlusOne) {
  for (const int64_t n : {1, 4, 16, 64}) {
    const auto probs = torch::full({2, n}, 1.0F / static_cast<float>(n));
    for (const double p : {0.0, 0.25, 0.5, 0.75}) {
      const Rows prefix = row_prefix(probs, p);
      const auto k = static_cast<int64_t>(p * static_cast<double>(n)) + 1;
      EXPECT_EQ(prefix.offsets[1].item<int64_t>(), std::min(k, n)) << n << " " << p;
      for (int64_t j = 0; j < prefix.offsets[1].item<int64_t>(); ++j) {
        EXPECT_EQ(prefix.ids[j].item<int32_t>(), j) << "ties by rising id";
      }
    }
  }
}

TEST(TopPRouter, HasTheCommonProperties) {
  for (const Weights weights : {Weights::kRaw, Weights::kNormalized}) {
    TopPRouter router = random_router(6, 9, {.p = 0.6, .weights = weights});
    const RouteInput input = random_input(13, 6);
    expect_well_formed(router.route(input));
    expect_token_equivariant(router, input);
    expect_batch_invariant(router, input);
    expect_deterministic(router, input);
    expect_routes_nothing(router, input);
    expect_ignores_padding(router, input);
    expect_weight_gradient(router, input, router.weight);
    TopPRouter other(6, 9, {.p = 0.6, .weights = weights});
    expect_survives_saving(router, other, input);
  }
}

TEST(TopPRouter, PermutedExpertsArePermutedIds) {
  TopPRouter router = random_router(6, 8, {.p = 0.5});
  const RouteInput input = random_input(9, 6);
  const auto before = rows(router.route(input));
  const auto order = torch::randperm(8, at::detail::createCPUGenerator(2));
  {
    const torch::NoGradGuard no_grad;
    router.weight.copy_(router.weight.index_select(0, order));
  }
  auto after = rows(router.route(input));
  for (auto& row : after) {
    for (Pair& pair : row) pair.expert = static_cast<int32_t>(order[pair.expert].item<int64_t>());
  }
  expect_same_rows(after, before);
}

TEST(TopPRouter, MorePIsMoreExperts) {
  TopPRouter router = random_router(6, 12, {});
  RouteInput input = random_input(20, 6);
  std::vector<int64_t> before(20, 1);
  for (const double p : {1e-9, 0.2, 0.4, 0.7, 0.95, 1.0}) {
    input.knobs.p = p;
    const auto counts = counts_of(router.route(input));
    for (size_t t = 0; t < counts.size(); ++t) EXPECT_GE(counts[t], before[t]) << p;
    before = counts;
  }
}

TEST(TopPRouter, WeightsAreTheProbabilitiesOrShares) {
  RouteInput input = random_input(5, 6);
  TopPRouter raw = random_router(6, 8, {.p = 0.7});
  const Routing routing = raw.route(input);
  const auto raw_rows = rows(routing);
  for (size_t t = 0; t < 5; ++t) {
    for (const Pair& pair : raw_rows[t]) {
      EXPECT_FLOAT_EQ(pair.weight,
                      routing.probs[static_cast<int64_t>(t)][pair.expert].item<float>());
    }
  }
  TopPRouter normalized = random_router(6, 8, {.p = 0.7, .weights = Weights::kNormalized});
  for (const auto& row : rows(normalized.route(input))) {
    double sum = 0;
    for (const Pair& pair : row) sum += pair.weight;
    EXPECT_NEAR(sum, 1, 1e-6);
  }
}

TEST(TopPRouter, OneExpertAndAllTokensOnOne) {
  TopPRouter alone = random_router(4, 1, {});
  EXPECT_EQ(alone.route(random_input(3, 4)).pairs(), 3);
  TopPRouter router(4, 5, {});
  torch::NoGradGuard no_grad;
  router.weight.zero_();
  router.weight[2].fill_(1);
  torch::AutoGradMode with_grad(true);
  const Routing routing = router.route({.hidden = torch::full({7, 4}, 9.0F)});
  EXPECT_EQ(routing.load()[2].item<int64_t>(), 7);
  EXPECT_EQ(routing.pairs(), 7);
  routing.weight.sum().backward();
  EXPECT_TRUE(router.weight.grad().isfinite().all().item<bool>());
}

TEST(TopPRouter, BadInputIsNamed) {
  for (const double p : {0.0, -0.1, 1.5, std::nan("")}) {
    EXPECT_THROW(TopPRouter(4, 4, {.p = p}), UsageError) << p;
  }
  TopPRouter router(4, 4, {});
  RouteInput input = random_input(2, 4);
  input.knobs.p = 2;
  EXPECT_THROW(router.route(input), UsageError);
  EXPECT_THROW(router.route(random_input(2, 5)), UsageError);
  try {
    router.route({.hidden = torch::full({2, 4}, std::nanf("")), .layer = 7});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("layer 7"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace cadre
