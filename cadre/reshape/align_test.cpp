#include "cadre/reshape/align.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

struct Expert {
  int64_t hidden, inner;
  std::vector<float> gate, up, down;
  ExpertView view() const { return {hidden, inner, gate.data(), up.data(), down.data()}; }
  ExpertView plain() const { return {hidden, inner, nullptr, up.data(), down.data()}; }
};

Expert random_expert(int64_t hidden, int64_t inner, uint64_t seed) {
  Random random(seed);
  const auto numbers = [&] {
    std::vector<float> x(static_cast<size_t>(hidden * inner));
    for (float& value : x) value = random.normal();
    return x;
  };
  return {hidden, inner, numbers(), numbers(), numbers()};
}

std::vector<int32_t> random_order(int64_t n, uint64_t seed) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  Random random(seed);
  std::shuffle(order.begin(), order.end(), random);
  return order;
}

Expert permuted(const Expert& e, std::span<const int32_t> order) {
  Expert p = e;
  permute_rows(order, e.hidden, e.gate.data(), p.gate.data());
  permute_rows(order, e.hidden, e.up.data(), p.up.data());
  permute_columns(order, e.hidden, e.down.data(), p.down.data());
  return p;
}

std::vector<double> run(const Expert& e, const std::vector<float>& x) {
  std::vector<double> y(static_cast<size_t>(e.hidden), 0);
  for (int64_t i = 0; i < e.inner; ++i) {
    double gate = 0, up = 0;
    for (int64_t c = 0; c < e.hidden; ++c) {
      gate += double{e.gate[static_cast<size_t>(i * e.hidden + c)]} * x[static_cast<size_t>(c)];
      up += double{e.up[static_cast<size_t>(i * e.hidden + c)]} * x[static_cast<size_t>(c)];
    }
    const double a = gate / (1 + std::exp(-gate)) * up;
    for (int64_t c = 0; c < e.hidden; ++c) {
      y[static_cast<size_t>(c)] += a * e.down[static_cast<size_t>(c * e.inner + i)];
    }
  }
  return y;
}

TEST(Align, AnyPermutationKeepsTheFunction) {
  const Expert e = random_expert(12, 20, 1);
  std::vector<float> x(12);
  Random random(2);
  for (float& value : x) value = random.normal();
  const auto before = run(e, x), after = run(permuted(e, random_order(20, 3)), x);
  for (size_t c = 0; c < before.size(); ++c) EXPECT_NEAR(before[c], after[c], 1e-9);
}

TEST(Align, FindsThePermutationAndUndoesIt) {
  for (const int64_t inner : {1, 2, 33, 128}) {
    const Expert e = random_expert(24, inner, 5);
    const Expert moved = permuted(e, random_order(inner, 6));
    for (const AlignOptions& options :
         {AlignOptions{}, AlignOptions{.exact_up_to = 0, .candidates = 8}}) {
      const Alignment found = align_by_weights(e.view(), moved.view(), options);
      const Expert back = permuted(moved, found.neurons);
      EXPECT_EQ(back.gate, e.gate);
      EXPECT_EQ(back.up, e.up);
      EXPECT_EQ(back.down, e.down);
      EXPECT_GE(found.bound, found.score * (1 - 1e-6));
    }
  }
}

TEST(Align, WorksWithoutAGate) {
  const Expert e = random_expert(24, 40, 5);
  const Expert moved = permuted(e, random_order(40, 6));
  EXPECT_EQ(permuted(moved, align_by_weights(e.plain(), moved.plain()).neurons).up, e.up);
  EXPECT_THROW(align_by_weights(e.view(), moved.plain()), UsageError);
}

TEST(Align, ActivationsMatchScaledAndShiftedCopies) {
  const int64_t tokens = 60, inner = 30;
  Random random(7);
  std::vector<float> a(static_cast<size_t>(tokens * inner)), b(a.size());
  for (float& value : a) value = random.normal();
  for (int64_t t = 0; t < tokens; ++t) a[static_cast<size_t>(t * inner)] = 3;  // never moves
  const auto order = random_order(inner, 8);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < inner; ++i) {
      b[static_cast<size_t>(t * inner + i)] =
          2 * a[static_cast<size_t>(t * inner + order[static_cast<size_t>(i)])] + 1;
    }
  }
  const auto found = align_by_activations(tokens, inner, a.data(), b.data()).neurons;
  for (int64_t i = 0; i < inner; ++i) {
    EXPECT_EQ(order[static_cast<size_t>(found[static_cast<size_t>(i)])], i);
  }
}

TEST(Align, WideExpertsNeedLittleMemory) {
  EXPECT_LT(align_scratch_bytes(14336), int64_t{32} << 20);
  EXPECT_GE(align_scratch_bytes(4096), int64_t{64} << 20);
}

}  // namespace
}  // namespace cadre::reshape
