#include "cadre/routing/sequence_router.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using testing::random_input;
using testing::rows;

constexpr int64_t kHidden = 6, kExperts = 5, kLength = 4;

RouteInput sequences(int64_t count, uint64_t seed = 1) {
  RouteInput input = random_input(count * kLength, kHidden, seed);
  input.sequence = torch::arange(count).repeat_interleave(kLength);
  return input;
}

std::shared_ptr<SequenceRouter> make_router(const SequenceChoice& options = {}) {
  auto router = std::make_shared<SequenceRouter>(kHidden, kExperts, options);
  testing::randomize(*router);
  return router;
}

class SequenceProperties : public ::testing::TestWithParam<int64_t> {};
INSTANTIATE_TEST_SUITE_P(MeanAndSideBySide, SequenceProperties, ::testing::Values(0, kLength));

TEST_P(SequenceProperties, HaveThemAll) {
  const SequenceChoice options{.k = 2, .length = GetParam(), .scale = 2};
  const auto router = make_router(options);
  const auto input = sequences(3);
  const Routing routing = router->route(input);
  testing::expect_well_formed(routing);
  for (const auto& row : rows(routing)) EXPECT_NEAR(row[0].weight + row[1].weight, 2, 1e-5);
  testing::expect_weight_gradient(*router, input, router->weight);
  testing::expect_deterministic(*router, input);
  testing::expect_routes_nothing(*router, input);
  testing::expect_ignores_padding(*router, input);
  testing::expect_survives_saving(
      *router, *std::make_shared<SequenceRouter>(kHidden, kExperts, options), input);
  EXPECT_FALSE(router->causal());
}

TEST_P(SequenceProperties, ASequenceAloneIsRoutedAsAmongOthers) {
  const auto router = make_router({.length = GetParam()});
  const auto input = sequences(3);
  const auto together = rows(router->route(input));
  for (int64_t s = 0; s < 3; ++s) {
    const RouteInput alone{.hidden = input.hidden.narrow(0, s * kLength, kLength)};
    const std::vector expected(together.begin() + s * kLength,
                               together.begin() + (s + 1) * kLength);
    testing::expect_same_rows(rows(router->route(alone)), expected);
    for (const auto& row : expected) EXPECT_EQ(row, expected[0]);
  }
}

TEST(Sequence, MeanIgnoresTheOrderOfTokensAndSideBySideDoesNot) {
  const auto mean = make_router();
  RouteInput input = sequences(1), turned = input;
  turned.hidden = input.hidden.flip(0);
  testing::expect_same_rows(rows(mean->route(turned)), rows(mean->route(input)));
  const auto ordered = make_router({.length = kLength});
  EXPECT_NE(rows(ordered->route(turned)), rows(ordered->route(input)));
}

TEST(Sequence, RefusesInOneLine) {
  EXPECT_THROW(SequenceRouter(kHidden, 0, {}), UsageError);
  EXPECT_THROW(SequenceRouter(kHidden, 4, {.k = 5}), UsageError);
  EXPECT_THROW(SequenceRouter(kHidden, 4, {.length = -1}), UsageError);
  EXPECT_THROW(make_router({.length = 3})->route(sequences(2)), UsageError);
  EXPECT_THROW(make_router()->route(random_input(4, kHidden + 1)), UsageError);
}

}  // namespace
}  // namespace cadre
