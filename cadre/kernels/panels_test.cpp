#include "cadre/kernels/panels.h"

#include <bit>
#include <functional>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/kernels/panels_test_kit.h"

namespace cadre::kernels {
namespace {

class PanelsOf : public testing::TestWithParam<BlockType> {};
INSTANTIATE_TEST_SUITE_P(Formats, PanelsOf, testing::ValuesIn(kAllTypes), format_name);

TEST_P(PanelsOf, ReferenceIsTheProductOfDecodedWeights) {
  const BlockType type = GetParam();
  const int64_t columns = columns_of(type, 2);
  for (const int64_t rows : {1, 16, 37}) {
    const TestWeights w(type, rows, columns, 3 * rows);
    const TestActivations x(5, columns, rows);
    const Floats y = x.product(w, 0, w.panels(), panel_matmul_reference);
    const Floats decoded = w.decoded();
    for (int64_t t = 0; t < 5; ++t) {
      for (int64_t r = 0; r < rows; ++r) {
        double want = 0, size = 0;
        for (int64_t c = 0; c < columns; ++c) {
          const double term = static_cast<double>(decoded[r * columns + c]) * x.value(type, t, c);
          want += term;
          size += std::abs(term);
        }
        // A float sum of as many terms as the format has a row; minima cancel, hence the sum of
        // magnitudes.
        ASSERT_NEAR(y[t * rows + r], want, 2e-6 * size + 1e-30) << "token " << t << " row " << r;
      }
    }
  }
}

TEST_P(PanelsOf, EveryTargetAndBatchEqualsTheReference) {
  const BlockType type = GetParam();
  for (const auto& [rows, blocks] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {16, 3}, {33, 2}, {50, 4}, {64, 1}}) {
    const TestWeights w(type, rows, columns_of(type, blocks), rows + blocks);
    for (const int64_t tokens : {0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 24}) {
      const TestActivations x(tokens, w.columns, tokens);
      const Floats want = x.product(w, 0, w.panels(), panel_matmul_reference);
      on_every_target([&] { expect_same(x.product(w, 0, w.panels(), panel_matmul), want); });
    }
  }
}

TEST_P(PanelsOf, APartOfThePanelsWritesItsRowsOnly) {
  const TestWeights w(GetParam(), 70, columns_of(GetParam(), 1), 1);
  const TestActivations x(3, w.columns, 2);
  for (const auto& [first, last] :
       std::vector<std::pair<int64_t, int64_t>>{{0, 0}, {0, 2}, {2, 3}, {3, 5}, {4, 5}}) {
    const Floats want = x.product(w, first, last, panel_matmul_reference);
    on_every_target([&] { expect_same(x.product(w, first, last, panel_matmul), want); });
    for (int64_t i = 0; i < 3 * 70; ++i) {
      ASSERT_EQ(want[i] == 12345.0f, i % 70 < first * 16 || i % 70 >= last * 16);
    }
  }
}

TEST_P(PanelsOf, RowsOfActivationsMayBeChosen) {
  const TestWeights w(GetParam(), 20, columns_of(GetParam(), 1), 1);
  const TestActivations x(4, w.columns, 2);
  const Floats all = x.product(w, 0, 2, panel_matmul_reference);
  const std::vector<int32_t> rows{3, 1, 1};
  QuantizedActivations view = x.view();
  view.rows = rows.data();
  Floats want;
  for (const int32_t row : rows) {
    want.insert(want.end(), all.begin() + 20 * row, all.begin() + 20 * (row + 1));
  }
  on_every_target([&] {
    Floats y(3 * 20);
    panel_matmul(w.matrix(), view, 3, 0, 2, y.data(), 20);
    expect_same(y, want);
  });
}

TEST_P(PanelsOf, ExtremeCodesAndActivationsDoNotOverflow) {
  const BlockType type = GetParam();
  const int64_t columns = columns_of(type, 1);
  TestWeights w(type, 16, columns, 1);
  for (const int fill : {0x00, 0xff, 0x80, 0x7f}) {
    if (!is_float(type)) {
      std::fill(w.blocks.begin(), w.blocks.end(), static_cast<std::byte>(fill));
      randomize_scales(type, 9, w.blocks);
    }
    pack_panels(type, 16, columns, w.blocks.data(), 0, 1, w.panel.data());
    for (const float sign : {1.0f, -1.0f}) {
      TestActivations x(7, columns, 2);
      std::fill(x.values.begin(), x.values.end(), sign);
      x.quantize();
      const Floats want = x.product(w, 0, 1, panel_matmul_reference);
      on_every_target([&] { expect_same(x.product(w, 0, 1, panel_matmul), want); });
    }
  }
}

TEST_P(PanelsOf, PackingInPartsIsPackingAtOnce) {
  const TestWeights w(GetParam(), 70, columns_of(GetParam(), 1), 1);
  std::vector<std::byte> parts(w.panel.size());
  for (int64_t panel = w.panels() - 1; panel >= 0; --panel) {
    pack_panels(w.type, w.rows, w.columns, w.blocks.data(), panel, 1, parts.data());
  }
  EXPECT_EQ(parts, w.panel);
}

TEST_P(PanelsOf, PanelIsNotMuchLargerThanTheFile) {
  const BlockType type = GetParam();
  const double file = 16.0 * row_bytes(type, 1024);
  EXPECT_LE(panel_stride(type, 1024), 1.04 * file);
  EXPECT_EQ(panel_bytes(type, 17, 1024), 2 * panel_stride(type, 1024));
}

TEST(Panels, ColumnsThatDoNotFitAreAnError) {
  EXPECT_THROW(panel_stride(BlockType::kQ4_0, 33), UsageError);
  EXPECT_THROW(pack_panels(BlockType::kQ4_K, 16, 32, nullptr, 0, 1, nullptr), UsageError);
}

void expect_quantised_as_reference(const Floats& x) {
  const auto n = static_cast<int64_t>(x.size());
  std::vector<int8_t> q(n), want_q(n);
  Floats scale(n / 32), want_scale(n / 32);
  std::vector<int16_t> sums(n / 16), want_sums(n / 16);
  quantize_activations_reference(x.data(), 1, n, want_q.data(), want_scale.data(),
                                 want_sums.data());
  on_every_target([&] {
    quantize_activations(x.data(), 1, n, q.data(), scale.data(), sums.data());
    ASSERT_EQ(q, want_q);
    ASSERT_EQ(sums, want_sums);
    expect_same(scale, want_scale);
  });
}

TEST(QuantizeActivations, EveryTargetEqualsTheReference) {
  for (const float scale : {1.0f, 1e-20f, 1e-29f, 1e20f}) {
    expect_quantised_as_reference(random_floats(32 * 50, 1, scale));
  }
  Floats ties(32 * 4);
  for (size_t i = 0; i < ties.size(); ++i) {
    ties[i] = i % 32 == 0 ? 127.0f : static_cast<float>(i) - 64.5f;
  }
  expect_quantised_as_reference(ties);
}

TEST(QuantizeActivations, ErrorIsHalfAStepAndSumsAreExact) {
  const Floats x = random_floats(32 * 40, 5);
  const TestActivations a(1, 32 * 40, 5);
  for (int64_t i = 0; i < 32 * 40; ++i) {
    ASSERT_LE(std::abs(x[i] - a.scale[i / 32] * a.q[i]), 0.50001f * a.scale[i / 32]);
  }
  for (int64_t half = 0; half < 80; ++half) {
    int sum = 0;
    for (int i = 0; i < 16; ++i) sum += a.q[16 * half + i];
    ASSERT_EQ(a.sums[half], sum);
  }
}

TEST(QuantizeActivations, ZerosTinyAndBrokenBlocks) {
  const float inf = std::numeric_limits<float>::infinity();
  for (const float odd : {0.0f, 1e-31f, 1e-42f, 3e38f, inf, -inf, std::nanf("")}) {
    Floats x(64, odd);
    for (int i = 0; i < 32; ++i) x[i] = i == 17 ? odd : 0.0f;
    expect_quantised_as_reference(x);
    std::vector<int8_t> q(64);
    Floats scale(2);
    std::vector<int16_t> sums(4);
    quantize_activations(x.data(), 1, 64, q.data(), scale.data(), sums.data());
    ASSERT_EQ(std::isnan(scale[0]), !std::isfinite(odd));
    ASSERT_EQ(q[17], odd > 1 && std::isfinite(odd) ? 127 : 0);
  }
}

}  // namespace
}  // namespace cadre::kernels
