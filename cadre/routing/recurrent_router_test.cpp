#include "cadre/routing/recurrent_router.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/nn/linear.h"
#include "cadre/nn/parameters.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;
using testing::random_input;
using testing::random_tensor;
using testing::rows;

constexpr int64_t kHidden = 8, kExperts = 5, kWidth = 6;

Recurrent options(Memory memory = Memory::kFull, CellKind cell = CellKind::kGru) {
  return {.k = 2, .width = kWidth, .cell = cell, .memory = memory};
}

/// Routers of a few layers on one cell.
struct Tower : torch::nn::Module {
  explicit Tower(const Recurrent& options, int64_t layers = 4) {
    for (int64_t i = 0; i < layers; ++i) {
      routers.push_back(std::make_shared<RecurrentRouter>(kHidden, kExperts, options,
                                                          i ? routers[0]->cell : nullptr));
      register_module(std::to_string(i), routers.back());
    }
    torch::NoGradGuard no_grad;
    uint64_t seed = 3;
    for (auto& [name, parameter] : unique_parameters(*this)) {
      parameter.copy_(random_tensor(parameter.sizes(), seed++));
    }
  }

  /// Each layer reads a vector of its own.
  std::vector<Routing> route(const torch::Tensor& hidden) {
    std::vector<Routing> routings;
    torch::Tensor state;
    for (auto& router : routers) {
      const auto layer = static_cast<int64_t>(routings.size());
      routings.push_back(
          router->route({.hidden = hidden.roll(layer, 1), .state = state, .layer = layer}));
      state = routings.back().state;
    }
    return routings;
  }

  std::vector<std::shared_ptr<RecurrentRouter>> routers;
};

TEST(RecurrentCell, IsLibTorchsGruCell) {
  RecurrentCell ours(CellKind::kGru, kWidth);
  torch::nn::GRUCell theirs(kWidth, kWidth);
  {
    torch::NoGradGuard no_grad;
    for (auto& item : theirs->named_parameters())
      item.value().copy_(*ours.named_parameters().find(item.key()));
  }
  const auto r = random_tensor({7, kWidth}, 1), h = random_tensor({7, kWidth}, 2);
  EXPECT_TRUE(torch::allclose(ours.forward(r, h), theirs->forward(r, h), 0, 1e-6));
  EXPECT_TRUE(torch::allclose(ours.forward(r, {}), theirs->forward(r), 0, 1e-6));
}

TEST(RecurrentCell, GradientsAreLibTorchs) {
  RecurrentCell ours(CellKind::kGru, kWidth);
  torch::nn::GRUCell theirs(kWidth, kWidth);
  {
    torch::NoGradGuard no_grad;
    for (auto& item : theirs->named_parameters())
      item.value().copy_(*ours.named_parameters().find(item.key()));
  }
  const auto r = random_tensor({7, kWidth}, 1).requires_grad_();
  const auto h = random_tensor({7, kWidth}, 2).requires_grad_();
  const auto mix = random_tensor({7, kWidth}, 3);
  const auto mine =
      torch::autograd::grad({(ours.forward(r, h) * mix).sum()},
                            {r, h, ours.weight_ih, ours.weight_hh, ours.bias_ih, ours.bias_hh});
  const auto want = torch::autograd::grad(
      {(theirs->forward(r, h) * mix).sum()},
      {r, h, theirs->weight_ih, theirs->weight_hh, theirs->bias_ih, theirs->bias_hh});
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_TRUE(torch::allclose(mine[i], want[i], 1e-4, 1e-5)) << "input " << i;
  }
}

struct Variant {
  std::string name;
  Recurrent options;
};
void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

class RecurrentProperties : public ::testing::TestWithParam<Variant> {};
INSTANTIATE_TEST_SUITE_P(
    Variants, RecurrentProperties,
    ::testing::Values(Variant{"gru", options()}, Variant{"detached", options(Memory::kDetached)},
                      Variant{"none", options(Memory::kNone)},
                      Variant{"residual", options(Memory::kResidual)},
                      Variant{"tanh", options(Memory::kFull, CellKind::kTanh)}),
    [](const auto& info) { return info.param.name; });

TEST_P(RecurrentProperties, HaveThemAll) {
  const auto make = [&] {
    return std::make_shared<RecurrentRouter>(kHidden, kExperts, GetParam().options);
  };
  const auto router = make(), other = make();
  testing::randomize(*router);
  const auto input = random_input(17, kHidden);
  const Routing routing = router->route(input);
  testing::expect_well_formed(routing);
  for (const auto& row : rows(routing)) EXPECT_NEAR(row[0].weight + row[1].weight, 1, 1e-5);
  testing::expect_token_equivariant(*router, input);
  testing::expect_batch_invariant(*router, random_input(5, kHidden));
  // Small inputs: central differences of tanh would see its third derivative.
  const RouteInput small = {.hidden = 0.3 * random_tensor({6, kHidden}, 1)};
  for (auto& parameter : {router->proj, router->weight, router->cell->weight_ih}) {
    testing::expect_weight_gradient(*router, small, parameter);
  }
  testing::expect_routes_nothing(*router, input);
  testing::expect_ignores_padding(*router, input);
  testing::expect_survives_saving(*router, *other, input);
}

TEST(Recurrent, StateCarriesTheGradientThroughDepthOnlyWhenFull) {
  for (const Memory memory : {Memory::kFull, Memory::kDetached, Memory::kNone, Memory::kResidual}) {
    Tower tower(options(memory));
    const auto last = tower.route(random_tensor({20, kHidden}, 1)).back();
    const auto mix = random_tensor({20, kExperts}, 2);
    const auto gradient = torch::autograd::grad(
        {testing::mixed_weights(last, mix)}, {tower.routers[0]->proj}, {}, false, false, true)[0];
    const bool reaches = gradient.defined() && gradient.abs().max().item<float>() > 0;
    EXPECT_EQ(reaches, memory == Memory::kFull) << static_cast<int>(memory);
  }
}

TEST(Recurrent, GradientThroughDepthMeetsCentralDifferences) {
  Tower tower(options());
  const auto hidden = 0.3 * random_tensor({3, kHidden}, 1), mix = random_tensor({3, kExperts}, 2);
  auto& proj = tower.routers[0]->proj;
  const auto gradient =
      torch::autograd::grad({testing::mixed_weights(tower.route(hidden).back(), mix)}, {proj})[0];
  torch::NoGradGuard no_grad;
  int compared = 0;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const auto direction = random_tensor(proj.sizes(), 50 + seed), original = proj.clone();
    const auto at = [&](double step) {
      proj.copy_(original + direction * step);
      auto routing = tower.route(hidden).back();
      proj.copy_(original);
      return routing;
    };
    const Routing up = at(5e-3), down = at(-5e-3);
    if (!torch::equal(testing::selection(up), testing::selection(down))) continue;
    const double numeric =
        (testing::mixed_weights(up, mix) - testing::mixed_weights(down, mix)).item<double>() / 1e-2;
    EXPECT_NEAR((gradient * direction).sum().item<double>(), numeric,
                1e-3 * std::max(1.0, std::abs(numeric)));
    ++compared;
  }
  EXPECT_GE(compared, 3);
}

TEST(Recurrent, LowerLayersAreRememberedUnlessMemoryIsOff) {
  for (const Memory memory : {Memory::kFull, Memory::kDetached, Memory::kNone, Memory::kResidual}) {
    const Tower tower(options(memory));
    const auto hidden = random_tensor({20, kHidden}, 1);
    const auto with = [&](const torch::Tensor& state) {
      return rows(tower.routers[1]->route({.hidden = hidden, .state = state}));
    };
    const int64_t columns = memory == Memory::kResidual ? kExperts : kWidth;
    const bool remembers = with(random_tensor({20, columns}, 2).abs()) != with({});
    EXPECT_EQ(remembers, memory != Memory::kNone) << static_cast<int>(memory);
  }
}

TEST(Recurrent, WithoutMemoryItIsAStatelessRouterOfTwoLayers) {
  Tower tower(options(Memory::kNone), 2);
  const auto hidden = random_tensor({9, kHidden}, 1);
  auto& router = *tower.routers[1];
  const auto state = router.cell->forward(cadre::linear(hidden, router.proj), {});
  TopKRouter second(kWidth, kExperts, {.k = 2, .weights = Weights::kNormalized});
  {
    torch::NoGradGuard no_grad;
    second.weight.copy_(router.weight);
  }
  const auto want = rows(second.route({.hidden = state}));
  testing::expect_same_rows(
      rows(router.route({.hidden = hidden, .state = random_tensor({9, kWidth}, 4)})), want);
}

TEST(Recurrent, TheCellStandsOnceAmongTheParametersAndCollectsAllLayersGradients) {
  Tower tower(options());
  EXPECT_EQ(unique_parameters(tower).size(), 4U + 4 * 2);
  const auto routings = tower.route(random_tensor({20, kHidden}, 1));
  auto& shared = tower.routers[0]->cell->bias_hh;
  const auto mix = random_tensor({20, kExperts}, 2);
  auto sum = torch::zeros_like(shared);
  torch::Tensor loss = torch::zeros({}, torch::kFloat64);
  for (const auto& routing : routings) {
    const auto part = testing::mixed_weights(routing, mix);
    sum += torch::autograd::grad({part}, {shared}, {}, /*retain_graph=*/true)[0];
    loss = loss + part;
  }
  EXPECT_TRUE(torch::allclose(torch::autograd::grad({loss}, {shared})[0], sum, 1e-4, 1e-5));
}

TEST(Recurrent, DegenerateSizes) {
  RecurrentRouter one(kHidden, 1, {.k = 1, .width = 1, .weights = Weights::kRaw});
  EXPECT_EQ(one.route(random_input(3, kHidden)).pairs(), 3);
  RecurrentRouter all(kHidden, 3, {.k = 3, .width = 2});
  EXPECT_EQ(all.route(random_input(2, kHidden)).pairs(), 6);
}

TEST(Recurrent, RefusesInOneLine) {
  EXPECT_THROW(RecurrentRouter(kHidden, 0, options()), UsageError);
  EXPECT_THROW(RecurrentRouter(kHidden, 4, {.k = 5}), UsageError);
  EXPECT_THROW(RecurrentRouter(kHidden, 4, {.width = 0}), UsageError);
  EXPECT_THROW(
      RecurrentRouter(kHidden, 4, options(), std::make_shared<RecurrentCell>(CellKind::kGru, 3)),
      UsageError);
  RecurrentRouter router(kHidden, kExperts, options());
  RouteInput input = random_input(3, kHidden);
  input.state = torch::zeros({3, kWidth + 1});
  input.layer = 7;
  try {
    router.route(input);
    FAIL() << "a state of the wrong width was taken";
  } catch (const UsageError& error) {
    EXPECT_THAT(error.what(), HasSubstr("layer 7"));
  }
}

}  // namespace
}  // namespace cadre
