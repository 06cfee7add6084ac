#include "cadre/routing/selection.h"

#include "cadre/base/error.h"
#include "cadre/routing/router_test_kit.h"

namespace cadre {
namespace {

using namespace testing;

/// Rows of lengths 2, 0, 3, 1 over 4 columns.
Rows ragged() {
  return {.offsets = torch::tensor(std::vector<int64_t>{0, 2, 2, 5, 6}),
          .ids = torch::tensor(std::vector<int32_t>{3, 1, 0, 2, 1, 2}, torch::kInt32)};
}

TEST(RowsOf, LeavesNullsAndPaddingOut) {
  const auto ids =
      torch::tensor(std::vector<int32_t>{0, 5, 4, 1, 2, 3}, torch::kInt32).view({3, 2});
  const Rows rows = rows_of(ids, 4, torch::tensor({true, true, false}));
  EXPECT_EQ(rows.null, 2);
  EXPECT_TRUE(rows.offsets.equal(torch::tensor(std::vector<int64_t>{0, 1, 2, 2})));
  EXPECT_TRUE(rows.ids.equal(torch::tensor(std::vector<int32_t>{0, 1}, torch::kInt32)));
  EXPECT_THROW(rows_of(ids - 1, 4), UsageError);
  EXPECT_THROW(rows_of(ids, 4, torch::tensor({true})), UsageError);
}

TEST(RowWeights, AreThoseOfTheirDefinition) {
  const auto values = random_tensor({4, 4}, 1).abs();
  const Rows rows = ragged();
  for (const double scale : {1.0, 2.5}) {
    const auto raw = row_weights(values, rows, Weighting::kRaw, scale);
    EXPECT_NEAR(raw[0].item<double>(), scale * values[0][3].item<double>(), 1e-6);
    for (const auto& [begin, end] : {std::pair{0, 2}, {2, 5}, {5, 6}}) {
      const auto row = raw.slice(0, begin, end) / scale;
      EXPECT_TRUE(row_weights(values, rows, Weighting::kNormalized, scale)
                      .slice(0, begin, end)
                      .allclose(scale * row / row.sum()));
      EXPECT_TRUE(row_weights(values, rows, Weighting::kSoftmax, scale)
                      .slice(0, begin, end)
                      .allclose(scale * torch::softmax(row, 0)));
    }
  }
}

TEST(RowWeights, GradientsAgreeWithDifferences) {
  const auto values = random_tensor({4, 4}, 2).abs() + 0.1;
  const auto mix = random_tensor({6}, 3), direction = random_tensor({4, 4}, 4);
  for (const auto weighting : {Weighting::kRaw, Weighting::kNormalized, Weighting::kSoftmax}) {
    const auto value = [&](const torch::Tensor& v) {
      return (row_weights(v, ragged(), weighting, 1.5) * mix).sum();
    };
    auto x = values.clone().requires_grad_();
    value(x).backward();
    const double numeric =
        (value(values + 1e-2 * direction) - value(values - 1e-2 * direction)).item<double>() / 2e-2;
    EXPECT_NEAR((x.grad() * direction).sum().item<double>(), numeric, 2e-3);
    EXPECT_EQ(x.grad()[1].abs().sum().item<double>(), 0) << "a token without experts";
  }
}

TEST(RowWeights, OfNothingAreNothing) {
  const Rows none = {.offsets = torch::zeros({1}, torch::kInt64),
                     .ids = torch::empty({0}, torch::kInt32)};
  auto values = torch::empty({0, 4}).requires_grad_();
  row_weights(values, none, Weighting::kSoftmax).sum().backward();
  EXPECT_EQ(values.grad().numel(), 0);
}

}  // namespace
}  // namespace cadre
