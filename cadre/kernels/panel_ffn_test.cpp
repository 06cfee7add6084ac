#include "cadre/kernels/panel_ffn.h"

#include <bit>
#include <cmath>
#include <functional>
#include <limits>

#include "cadre/kernels/panels_test_kit.h"

namespace cadre::kernels {
namespace {

class ExpertOf : public testing::TestWithParam<BlockType> {};
INSTANTIATE_TEST_SUITE_P(Formats, ExpertOf, testing::ValuesIn(kAllTypes), format_name);

/// An expert [H, D] with inputs, and its output by the scalar definitions, step by step.
struct TestExpert {
  TestWeights gate, up, down;
  Floats gate_bias, up_bias, down_bias;
  GluKind kind;
  bool biased;

  TestExpert(BlockType type, BlockType down_type, int64_t hidden, int64_t inner, GluKind kind)
      : gate(type, inner, hidden, 1),
        up(type, inner, hidden, 2),
        down(down_type, hidden, inner, 3),
        gate_bias(random_floats(inner, 4)),
        up_bias(random_floats(inner, 5)),
        down_bias(random_floats(hidden, 6)),
        kind(kind),
        biased(kind == GluKind::kClampedSwiGlu) {}

  int64_t inner() const { return gate.rows; }
  int64_t hidden() const { return down.rows; }

  PanelExpert view() const {
    PanelExpert e = {.gate = gate.matrix(), .up = up.matrix(), .down = down.matrix(), .glu = kind};
    if (biased) {
      e.gate_bias = gate_bias.data();
      e.up_bias = up_bias.data();
      e.down_bias = down_bias.data();
    }
    return e;
  }

  void add_bias(const Floats& bias, Floats& y) const {
    for (size_t i = 0; i < y.size() && biased; ++i) y[i] += bias[i % bias.size()];
  }

  Floats want(const TestActivations& x) const {
    Floats g = x.product(gate, 0, gate.panels(), panel_matmul_reference);
    Floats u = x.product(up, 0, up.panels(), panel_matmul_reference);
    add_bias(gate_bias, g);
    add_bias(up_bias, u);
    glu_reference(kind, g.data(), u.data(), static_cast<int64_t>(g.size()));
    TestActivations h(x.tokens, inner(), 1);
    h.values = g;
    h.quantize();
    Floats y = h.product(down, 0, down.panels(), panel_matmul_reference);
    add_bias(down_bias, y);
    return y;
  }
};

/// Both phases, cut into pieces of `step` blocks or panels and `token_step` tokens.
Floats in_pieces(const TestExpert& e, const TestActivations& x, int64_t step, int64_t token_step) {
  const PanelExpert expert = e.view();
  TestActivations inner(x.tokens, e.inner(), 7);
  const bool whole = e.inner() % 32 == 0;
  const InnerActivations into = {.q = whole ? inner.q.data() : nullptr,
                                 .scale = inner.scale.data(),
                                 .sums = inner.sums.data(),
                                 .values = inner.values.data()};
  const auto each = [&](int64_t count, const auto& body) {
    for (int64_t t = 0; t < x.tokens; t += token_step) {
      for (int64_t i = 0; i < count; i += step) {
        body(t, std::min(t + token_step, x.tokens), i, std::min(i + step, count));
      }
    }
  };
  each(inner_blocks(expert), [&](int64_t t, int64_t t_end, int64_t i, int64_t i_end) {
    panel_ffn_inner(expert, x.view(), t, t_end, i, i_end, into);
  });
  Floats y(x.tokens * e.hidden());
  each(e.down.panels(), [&](int64_t t, int64_t t_end, int64_t i, int64_t i_end) {
    panel_ffn_down(expert, into, t, t_end, i, i_end, nullptr, y.data());
  });
  return y;
}

TEST_P(ExpertOf, FeedForwardEqualsItsStepsHoweverItIsCut) {
  const BlockType type = GetParam();
  const int64_t width = is_float(type) ? 64 : block_info(type).elements;
  for (const GluKind kind : {GluKind::kSwiGlu, GluKind::kClampedSwiGlu, GluKind::kGeluGlu}) {
    const TestExpert e(type, type, width, 2 * width, kind);
    for (const int64_t tokens : {1, 5, 53}) {
      const TestActivations x(tokens, width, tokens);
      const Floats want = e.want(x);
      on_every_target([&] {
        expect_same(in_pieces(e, x, 100, 100), want);
        expect_same(in_pieces(e, x, 1, 2), want);
        expect_same(in_pieces(e, x, 2, 50), want);
      });
    }
  }
}

TEST(PanelFfn, FloatDownMatrixTakesAnyInnerWidth) {
  for (const int64_t inner : {1, 17, 40, 70}) {
    const TestExpert e(BlockType::kBF16, BlockType::kF32, 50, inner, GluKind::kSwiGlu);
    const TestActivations x(7, 50, inner);
    const Floats want = e.want(x);
    on_every_target([&] {
      expect_same(in_pieces(e, x, 100, 100), want);
      expect_same(in_pieces(e, x, 1, 3), want);
    });
  }
}

TEST(PanelFfn, QuantisedInputsMayFeedAFloatDownMatrix) {
  const TestExpert e(BlockType::kQ4_0, BlockType::kBF16, 64, 96, GluKind::kSwiGlu);
  const TestActivations x(3, 64, 1);
  on_every_target([&] { expect_same(in_pieces(e, x, 1, 1), e.want(x)); });
}

TEST(PanelFfn, TokensAreChosenAndSlotsPlaced) {
  const TestExpert e(BlockType::kQ8_0, BlockType::kQ4_0, 64, 64, GluKind::kSwiGlu);
  const TestActivations x(4, 64, 1);
  const Floats all = e.want(x);
  const std::vector<int32_t> rows{3, 0}, slot{5, 2};
  QuantizedActivations view = x.view();
  view.rows = rows.data();
  TestActivations inner(2, 64, 1);
  const InnerActivations into = {inner.q.data(), inner.scale.data(), inner.sums.data(), nullptr};
  Floats y(6 * 64, 9.0f), want = y;
  panel_ffn_inner(e.view(), view, 0, 2, 0, 2, into);
  panel_ffn_down(e.view(), into, 0, 1, 0, 4, slot.data(), y.data());
  panel_ffn_down(e.view(), into, 1, 2, 0, 4, slot.data(), y.data());
  std::copy_n(all.begin() + 3 * 64, 64, want.begin() + 5 * 64);
  std::copy_n(all.begin(), 64, want.begin() + 2 * 64);
  expect_same(y, want);
}

TEST(CombineSlots, SumsInRouterOrder) {
  for (const int64_t width : {1, 16, 37}) {
    const Floats slots = random_floats(3 * 4 * width, 1), weight = random_floats(3 * 4, 2);
    Floats want(3 * width);
    for (int64_t t = 0; t < 3; ++t) {
      for (int64_t i = 0; i < 4; ++i) {
        for (int64_t c = 0; c < width; ++c) {
          float& y = want[t * width + c];
          y = std::fma(weight[t * 4 + i], slots[(t * 4 + i) * width + c], y);
        }
      }
    }
    on_every_target([&] {
      Floats y(3 * width, 77.0f);
      combine_slots(slots.data(), weight.data(), 3, 4, width, 0, width / 2, y.data());
      combine_slots(slots.data(), weight.data(), 3, 4, width, width / 2, width, y.data());
      expect_same(y, want);
    });
  }
}

double exact(GluKind kind, double g, double u) {
  switch (kind) {
    case GluKind::kSwiGlu:
      return g / (1 + std::exp(-g)) * u;
    case GluKind::kClampedSwiGlu:
      g = std::min(g, 7.0);
      return g / (1 + std::exp(-1.702 * g)) * (std::clamp(u, -7.0, 7.0) + 1);
    case GluKind::kGeluGlu:
      return 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g))) * u;
  }
  return 0;
}

TEST(Glu, IsNearTheExactValueAndTheSameOnEveryTarget) {
  Floats gate = random_floats(4001, 1, 4);
  Floats up = random_floats(4001, 2, 4);
  const float inf = std::numeric_limits<float>::infinity();
  for (const float odd :
       {0.0f, -0.0f, 87.0f, -87.0f, 88.5f, -88.5f, 1e4f, -1e4f, inf, -inf, std::nanf(""), 1e-40f}) {
    gate.push_back(odd);
    up.push_back(1.0f);
    gate.push_back(1.0f);
    up.push_back(odd);
  }
  for (const GluKind kind : {GluKind::kSwiGlu, GluKind::kClampedSwiGlu, GluKind::kGeluGlu}) {
    Floats want = gate;
    const auto n = static_cast<int64_t>(gate.size());
    glu_reference(kind, want.data(), up.data(), n);
    for (int64_t i = 0; i < 4001; ++i) {
      const double value = exact(kind, gate[i], up[i]);
      ASSERT_NEAR(want[i], value, 2e-6 * std::abs(value) + 1e-6) << gate[i] << " " << up[i];
    }
    on_every_target([&] {
      Floats got = gate;
      glu(kind, got.data(), up.data(), n);
      expect_same(got, want);
    });
  }
}

}  // namespace
}  // namespace cadre::kernels
