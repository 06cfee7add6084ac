#include "cadre/nn/structured_head.h"

#include <gtest/gtest.h>

#include "cadre/base/error.h"

namespace cadre {
namespace {

int64_t weights_of(const StructuredHead& head) {
  int64_t count = head->hidden_weight.numel();
  for (const auto& weight : head->out_weight) count += weight.numel();
  return count;
}

TEST(StructuredHead, ParametersAsInTheFormula) {
  for (const int64_t shared : {0, 2, 6}) {
    const StructuredHead head(
        StructuredHeadOptions{.in = 10, .hidden = 6, .shared = shared, .classes = {3, 4, 5}});
    EXPECT_EQ(weights_of(head), 10 * shared + 10 * (6 - shared) * 3 + 6 * 12);
  }
}

TEST(StructuredHead, AllSharedIsAnOrdinaryHead) {
  torch::manual_seed(1);
  StructuredHead head(StructuredHeadOptions{.in = 10, .hidden = 6, .shared = 6, .classes = {3, 4}});
  StructuredHead one(StructuredHeadOptions{.in = 10, .hidden = 6, .shared = 0, .classes = {7}});
  const torch::NoGradGuard no_grad;
  one->hidden_weight.copy_(head->hidden_weight);
  one->out_weight[0].copy_(torch::cat(head->out_weight));
  const auto x = torch::randn({5, 10});
  EXPECT_TRUE(torch::allclose(head->forward(x), one->forward(x), 1e-5, 1e-6));
}

TEST(StructuredHead, ChangingAVerticalsUnitsLeavesTheOthersAlone) {
  torch::manual_seed(2);
  StructuredHead head(StructuredHeadOptions{.in = 4, .hidden = 3, .shared = 1, .classes = {2, 2}});
  const torch::NoGradGuard no_grad;
  const auto x = torch::randn({5, 4}), before = head->forward(x);
  head->hidden_weight.slice(0, 3, 5).zero_();  // the second vertical's own two
  const auto after = head->forward(x);
  EXPECT_TRUE(torch::equal(after.narrow(1, 0, 2), before.narrow(1, 0, 2)));
  EXPECT_FALSE(torch::equal(after.narrow(1, 2, 2), before.narrow(1, 2, 2)));
}

TEST(StructuredHead, RefusesImpossibleSizes) {
  const auto make = [](int64_t shared, std::vector<int64_t> classes) {
    StructuredHead(
        StructuredHeadOptions{.in = 4, .hidden = 3, .shared = shared, .classes = classes});
  };
  EXPECT_THROW(make(4, {2}), UsageError);
  EXPECT_THROW(make(0, {}), UsageError);
  EXPECT_THROW(make(0, {2, 0}), UsageError);
}

}  // namespace
}  // namespace cadre
