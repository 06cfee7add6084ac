#include "cadre/routing/routers.h"

#include <set>

#include "cadre/base/error.h"
#include "cadre/nn/parameters.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using namespace testing;

constexpr RouterShape kShape = {
    .hidden = 16, .experts = 8, .experts_per_token = 2, .vocabulary = 50, .layers = 3};

RouteInput input_of(int64_t tokens) {
  RouteInput input = random_input(tokens, kShape.hidden);
  input.token_ids = torch::arange(tokens) % kShape.vocabulary;
  return input;
}

class EveryRouter : public ::testing::TestWithParam<RouterFactory> {
 protected:
  const RouterConfig config_ = {.kind = std::string(GetParam().kind)};
  const RouterKind& kind_ = router_kind_named(GetParam().kind);
};

TEST_P(EveryRouter, IsWhatItsKindSays) {
  const Routers routers = make_routers(config_, kShape);
  ASSERT_EQ(routers.size(), 3U);
  for (const auto& router : routers) {
    EXPECT_EQ(router->experts(), 8);
    EXPECT_EQ(router->causal(), kind_.causal);
    EXPECT_EQ(router->batch_invariant(), kind_.batch_invariant);
    expect_well_formed(router->route(input_of(12)));
  }
}

TEST_P(EveryRouter, KeepsAllItLearnsInTheCheckpoint) {
  const Routers routers = make_routers(config_, kShape);
  std::set<const void*> stored;
  for (size_t i = 0; i < routers.size(); ++i) {
    const auto tensors = checkpoint_tensors(*routers[i], config_, kShape, static_cast<int64_t>(i));
    const auto expected = kind_.tensors(config_, kShape, static_cast<int64_t>(i));
    ASSERT_EQ(tensors.size(), expected.size());
    for (size_t j = 0; j < tensors.size(); ++j) {
      EXPECT_EQ(tensors[j].second.sizes().vec(), expected[j].shape) << tensors[j].first;
      EXPECT_EQ(tensors[j].second.scalar_type(), torch::kFloat32) << tensors[j].first;
      stored.insert(tensors[j].second.unsafeGetTensorImpl());
    }
  }
  for (const auto& router : routers) {
    for (const auto& [name, tensor] : unique_parameters(*router)) {
      EXPECT_TRUE(stored.contains(tensor.unsafeGetTensorImpl())) << name << " is lost";
    }
    for (const auto& item : router->named_buffers()) {
      EXPECT_TRUE(stored.contains(item.value().unsafeGetTensorImpl())) << item.key() << " is lost";
    }
  }
}

TEST_P(EveryRouter, RefusesNonFiniteInputOrDoesNotReadIt) {
  const auto router = make_routers(config_, kShape)[0];
  RouteInput input = input_of(4);
  input.hidden.fill_(std::nanf(""));
  input.layer = 5;
  try {
    expect_well_formed(router->route(input));
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("layer 5"), std::string::npos) << error.what();
  }
}

TEST_P(EveryRouter, RoutesNoTokens) {
  for (const auto& router : make_routers(config_, kShape)) {
    const Routing routing = router->route(input_of(0));
    expect_well_formed(routing);
    EXPECT_EQ(routing.tokens(), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(All, EveryRouter,
                         ::testing::ValuesIn(router_factories().begin(), router_factories().end()),
                         [](const auto& info) { return std::string(info.param.kind); });

TEST(Routers, EveryKindHasAFactory) {
  ASSERT_EQ(router_factories().size(), router_kinds().size());
  for (size_t i = 0; i < router_kinds().size(); ++i) {
    EXPECT_EQ(router_factories()[i].kind, router_kinds()[i].name);
  }
}

TEST(Routers, OptionsReachTheRouter) {
  RouterConfig config = {.kind = "top_p"};
  set_router_option(config, "p", "1");
  EXPECT_EQ(make_routers(config, kShape)[0]->route(input_of(2)).pairs(), 16);
  config.options["p"] = 2.0;
  EXPECT_THROW(make_routers(config, kShape), UsageError);
}

}  // namespace
}  // namespace cadre
