#pragma once

/// The properties that every router must have, as GoogleTest checks. A new router's test calls them
/// with its own options (docs/extending.md).

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "cadre/routing/router.h"

namespace cadre::testing {

struct Pair {
  int32_t expert;
  float weight;
  bool operator==(const Pair&) const = default;
};
inline void PrintTo(const Pair& pair, std::ostream* out) {
  *out << pair.expert << ":" << pair.weight;
}

/// The pairs of each token.
inline std::vector<std::vector<Pair>> rows(const Routing& routing) {
  const auto weight = routing.weight.detach().contiguous();
  const int64_t* offset = routing.offsets.data_ptr<int64_t>();
  std::vector<std::vector<Pair>> result(routing.tokens());
  for (int64_t t = 0; t < routing.tokens(); ++t) {
    for (int64_t p = offset[t]; p < offset[t + 1]; ++p) {
      result[t].push_back({routing.expert.data_ptr<int32_t>()[p], weight.data_ptr<float>()[p]});
    }
  }
  return result;
}

inline torch::Tensor random_tensor(at::IntArrayRef sizes, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return torch::empty(sizes).normal_(0.0, 1.0, generator);
}

inline RouteInput random_input(int64_t tokens, int64_t hidden, uint64_t seed = 1) {
  return {.hidden = random_tensor({tokens, hidden}, seed)};
}

/// Ids in range, weights finite and not negative, offsets that cover all pairs.
inline void expect_well_formed(const Routing& routing) {
  ASSERT_EQ(routing.offsets.scalar_type(), torch::kInt64);
  ASSERT_EQ(routing.expert.scalar_type(), torch::kInt32);
  ASSERT_EQ(routing.weight.sizes(), routing.expert.sizes());
  const int64_t* offset = routing.offsets.data_ptr<int64_t>();
  EXPECT_EQ(offset[0], 0);
  EXPECT_EQ(offset[routing.tokens()], routing.pairs());
  for (int64_t t = 0; t < routing.tokens(); ++t) EXPECT_LE(offset[t], offset[t + 1]);
  for (const auto& row : rows(routing)) {
    for (const Pair& pair : row) {
      EXPECT_GE(pair.expert, 0);
      EXPECT_LT(pair.expert, routing.experts);
      EXPECT_TRUE(std::isfinite(pair.weight));
      EXPECT_GE(pair.weight, 0);
    }
  }
  EXPECT_EQ(routing.load().sum().item<int64_t>(), routing.pairs());
}

inline void expect_same_rows(const std::vector<std::vector<Pair>>& a,
                             const std::vector<std::vector<Pair>>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t t = 0; t < a.size(); ++t) {
    ASSERT_EQ(a[t].size(), b[t].size()) << "token " << t;
    for (size_t j = 0; j < a[t].size(); ++j) {
      EXPECT_EQ(a[t][j].expert, b[t][j].expert) << "token " << t;
      EXPECT_NEAR(a[t][j].weight, b[t][j].weight, 1e-5) << "token " << t;
    }
  }
}

/// Permuting the tokens permutes the rows.
inline void expect_token_equivariant(Router& router, const RouteInput& input) {
  const auto order = torch::randperm(input.hidden.size(0), at::detail::createCPUGenerator(5));
  RouteInput permuted = input;
  permuted.hidden = input.hidden.index_select(0, order);
  const auto original = rows(router.route(input));
  std::vector<std::vector<Pair>> expected;
  for (int64_t t = 0; t < order.size(0); ++t) {
    expected.push_back(original[order[t].item<int64_t>()]);
  }
  expect_same_rows(rows(router.route(permuted)), expected);
}

/// For batch-invariant routers: a token alone is routed as in a batch.
inline void expect_batch_invariant(Router& router, const RouteInput& input) {
  ASSERT_TRUE(router.batch_invariant());
  const auto together = rows(router.route(input));
  for (int64_t t = 0; t < input.hidden.size(0); ++t) {
    RouteInput alone = input;
    alone.hidden = input.hidden.narrow(0, t, 1);
    expect_same_rows(rows(router.route(alone)), {together[t]});
  }
}

/// The gradient of a fixed mix of the weights against central differences along random directions
/// of `parameter`; steps that change the selection count as a failure of the test's data.
inline void expect_weight_gradient(Router& router, const RouteInput& input,
                                   torch::Tensor parameter) {
  const auto mix = random_tensor({router.route(input).pairs()}, 11);
  const auto value = [&](const Routing& routing) { return (routing.weight * mix).sum(); };
  const Routing routing = router.route(input);
  const auto gradient = torch::autograd::grad({value(routing)}, {parameter})[0];
  torch::NoGradGuard no_grad;
  constexpr double kStep = 5e-3;
  for (uint64_t seed = 0; seed < 4; ++seed) {
    const auto direction = random_tensor(parameter.sizes(), 100 + seed);
    const auto shifted = [&](double step) {
      parameter.add_(direction, step);
      Routing result = router.route(input);
      parameter.sub_(direction, step);
      EXPECT_TRUE(torch::equal(result.expert, routing.expert)) << "choose another seed";
      return (result.weight.to(torch::kFloat64) * mix).sum().item<double>();
    };
    const double numeric = (shifted(kStep) - shifted(-kStep)) / (2 * kStep);
    EXPECT_NEAR((gradient * direction).sum().item<double>(), numeric,
                2e-3 * std::max(1.0, std::abs(numeric)));
  }
}

}  // namespace cadre::testing
