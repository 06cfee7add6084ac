#pragma once

/// The properties that every router must have, as GoogleTest checks. A new router's test calls them
/// with its own options (docs/extending.md).

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <sstream>
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

/// sum over pairs of mix[token, expert] * weight, differentiable.
inline torch::Tensor mixed_weights(const Routing& routing, const torch::Tensor& mix) {
  const auto counts = routing.offsets.diff();
  const auto token = torch::arange(routing.tokens()).repeat_interleave(counts);
  const auto factor = mix.index({token, routing.expert.to(torch::kInt64)});
  return (routing.weight.to(torch::kFloat64) * factor).sum();
}

/// Which experts each token has, [T, E] bool.
inline torch::Tensor selection(const Routing& routing) {
  auto chosen = torch::zeros({routing.tokens(), routing.experts}, torch::kBool);
  const auto token = torch::arange(routing.tokens()).repeat_interleave(routing.offsets.diff());
  return chosen.index_put_({token, routing.expert.to(torch::kInt64)}, torch::tensor(true));
}

/// The gradient of a fixed mix of the weights against central differences along random directions
/// of `parameter`. Directions that change the selection say nothing about it and are left out.
inline void expect_weight_gradient(Router& router, const RouteInput& input,
                                   torch::Tensor parameter) {
  const Routing routing = router.route(input);
  const auto mix = random_tensor({routing.tokens(), routing.experts}, 11);
  const auto gradient = torch::autograd::grad({mixed_weights(routing, mix)}, {parameter})[0];
  torch::NoGradGuard no_grad;
  constexpr double kStep = 5e-3;
  int compared = 0;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const auto direction = random_tensor(parameter.sizes(), 100 + seed);
    const auto original = parameter.clone();
    const auto shifted = [&](double step) {
      parameter.copy_(original + direction * step);
      Routing result = router.route(input);
      parameter.copy_(original);
      return result;
    };
    const Routing up = shifted(kStep), down = shifted(-kStep);
    if (!torch::equal(selection(up), selection(down))) continue;
    const double numeric =
        (mixed_weights(up, mix) - mixed_weights(down, mix)).item<double>() / (2 * kStep);
    EXPECT_NEAR((gradient * direction).sum().item<double>(), numeric,
                1e-3 * std::max(1.0, std::abs(numeric)));
    ++compared;
  }
  EXPECT_GE(compared, 3) << "the selection flips under small steps: choose other inputs";
}

/// Weights N(0, 1), so that scores differ clearly.
inline void randomize(Router& router, uint64_t seed = 3) {
  torch::NoGradGuard no_grad;
  for (auto& parameter : router.parameters()) {
    parameter.copy_(random_tensor(parameter.sizes(), seed++));
  }
}

/// What `from` learned and keeps reaches `to` (same kind and sizes) through a file's bytes.
inline void expect_survives_saving(Router& from, Router& to, const RouteInput& input) {
  std::stringstream bytes;
  torch::serialize::OutputArchive saved;
  from.save(saved);
  saved.save_to(bytes);
  torch::serialize::InputArchive loaded;
  loaded.load_from(bytes);
  to.load(loaded);
  EXPECT_EQ(rows(to.route(input)), rows(from.route(input)));
}

/// The same input gives the same routing, bit for bit.
inline void expect_deterministic(Router& router, const RouteInput& input) {
  EXPECT_EQ(rows(router.route(input)), rows(router.route(input)));
}

/// No tokens, and none but padding: an empty routing with gradients that are defined.
inline void expect_routes_nothing(Router& router, RouteInput input) {
  const int64_t width = input.hidden.size(1);
  input.padding = torch::ones({input.hidden.size(0)}, torch::kBool);
  const Routing padded = router.route(input);
  expect_well_formed(padded);
  EXPECT_EQ(padded.pairs(), 0);
  EXPECT_EQ(padded.tokens(), input.hidden.size(0));
  const auto no_ids = torch::empty({0}, torch::kInt64);
  const Routing empty = router.route({.hidden = torch::empty({0, width}), .token_ids = no_ids});
  expect_well_formed(empty);
  EXPECT_EQ(empty.tokens(), 0);
  if (empty.weight.requires_grad()) empty.weight.sum().backward();
}

/// Padding has no row and changes nobody else's.
inline void expect_ignores_padding(Router& router, const RouteInput& input) {
  const int64_t tokens = input.hidden.size(0);
  RouteInput longer = input;
  longer.hidden = torch::cat({input.hidden, random_tensor({3, input.hidden.size(1)}, 77)});
  longer.padding = torch::arange(tokens + 3) >= tokens;
  if (input.sequence.defined()) {
    longer.sequence = torch::cat({input.sequence, input.sequence.slice(0, 0, 1).repeat({3})});
  }
  auto expected = rows(router.route(input));
  expected.resize(tokens + 3);
  expect_same_rows(rows(router.route(longer)), expected);
}

}  // namespace cadre::testing
