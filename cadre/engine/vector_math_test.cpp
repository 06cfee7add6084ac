#include "cadre/engine/vector_math.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <bit>
#include <cmath>
#include <functional>
#include <random>
#include <vector>

#include "cadre/engine/attention_kernel.h"

namespace cadre::engine {
namespace {

std::vector<float> random_floats(int64_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(normal(random));
  return values;
}

/// What f gives on every instruction set of this machine that has fused multiply-add.
void expect_equal_on_every_target(const std::function<std::vector<float>()>& f) {
  const int64_t fused = HWY_AVX3_DL | HWY_AVX3 | HWY_AVX2 | HWY_NEON;
  std::vector<float> first;
  for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
    if ((target & fused) == 0) continue;
    hwy::SetSupportedTargetsForTest(target);
    const std::vector<float> result = f();
    if (first.empty()) first = result;
    ASSERT_EQ(result.size(), first.size());
    for (size_t i = 0; i < first.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(result[i]), std::bit_cast<uint32_t>(first[i]))
          << "element " << i << " on " << hwy::TargetName(target);
    }
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
}

TEST(VectorMath, BitsDoNotDependOnTheInstructionSet) {
  for (const int64_t n : {1, 7, 16, 31, 64, 100, 2048}) {
    const auto x = random_floats(n, 1), w = random_floats(n, 2), b = random_floats(n, 3);
    expect_equal_on_every_target([&] {
      std::vector<float> y(x.size()), all;
      const auto keep = [&] { all.insert(all.end(), y.begin(), y.end()); };
      rms_norm(x.data(), w.data(), 1e-5F, n, y.data());
      keep();
      layer_norm(x.data(), w.data(), b.data(), 1e-5F, n, y.data());
      keep();
      y = x;
      softmax(y.data(), n);
      keep();
      y = x;
      sigmoid(y.data(), n);
      keep();
      add_scaled(0.3F, w.data(), n, y.data());
      keep();
      rotate_halves(w.data(), b.data(), n / 2 * 2, y.data());
      keep();
      rotate_neighbours(w.data(), b.data(), n / 2 * 2, y.data());
      keep();
      all.push_back(dot(x.data(), w.data(), n));
      return all;
    });
  }
}

TEST(VectorMath, NormsAndSoftmaxAreWhatTheySay) {
  const auto x = random_floats(100, 4), w = random_floats(100, 5);
  double mean = 0, squares = 0, total = 0;
  for (const float v : x) mean += v / 100.0;
  for (const float v : x) squares += v * v / 100.0;
  for (const float v : x) total += std::exp(double{v});
  std::vector<float> rms(100), layer(100), shares = x;
  rms_norm(x.data(), w.data(), 1e-5F, 100, rms.data());
  layer_norm(x.data(), w.data(), nullptr, 1e-5F, 100, layer.data());
  softmax(shares.data(), 100);
  for (size_t i = 0; i < 100; ++i) {
    EXPECT_NEAR(rms[i], x[i] / std::sqrt(squares + 1e-5) * w[i], 1e-5);
    EXPECT_NEAR(layer[i], (x[i] - mean) / std::sqrt(squares - mean * mean + 1e-5) * w[i], 1e-5);
    EXPECT_NEAR(shares[i], std::exp(x[i]) / total, 1e-7);
  }
}

TEST(VectorMath, FindsValuesThatAreNotFinite) {
  auto x = random_floats(50, 6);
  EXPECT_TRUE(all_finite(x.data(), 50));
  x[49] = -INFINITY;
  EXPECT_FALSE(all_finite(x.data(), 50));
  x[49] = NAN;
  EXPECT_FALSE(all_finite(x.data(), 50));
  EXPECT_TRUE(all_finite(x.data(), 49));
}

TEST(VectorMath, RoundsToBf16AsTiesToEven) {
  const std::vector<float> x = {1.0F, 1.00390625F, 1.01171875F, -2.5F, INFINITY, NAN};
  std::vector<uint16_t> y(12);
  to_bf16(x.data(), 6, 2, y.data());
  EXPECT_EQ(y[0], 0x3f80);
  EXPECT_EQ(y[2], 0x3f80);  // half way: to the even one below
  EXPECT_EQ(y[4], 0x3f82);  // half way: to the even one above
  EXPECT_EQ(y[6], 0xc020);
  EXPECT_EQ(y[8], 0x7f80);
  EXPECT_GT(y[10] & 0x7fff, 0x7f80);
  EXPECT_EQ(y[1], 0);
}

/// A page with random keys and values, and rows over parts of it.
std::vector<float> attend_rows(int64_t key_width, int64_t value_width, int64_t rows, int64_t group,
                               float garbage) {
  std::vector<uint16_t> keys(static_cast<size_t>(kPageTokens * key_width)),
      values(static_cast<size_t>(kPageTokens * value_width));
  auto k = random_floats(static_cast<int64_t>(keys.size()), 7);
  auto v = random_floats(static_cast<int64_t>(values.size()), 8);
  for (int64_t d = 0; d < key_width; ++d) k[static_cast<size_t>(d * kPageTokens + 60)] = garbage;
  for (int64_t d = 0; d < value_width; ++d) v[static_cast<size_t>(60 * value_width + d)] = garbage;
  to_bf16(k.data(), static_cast<int64_t>(k.size()), 1, keys.data());
  to_bf16(v.data(), static_cast<int64_t>(v.size()), 1, values.data());
  const auto q = random_floats(rows * key_width, 9);
  std::vector<float> out(static_cast<size_t>(rows * value_width));
  std::vector<AttentionRow> list;
  for (int64_t r = 0; r < rows; ++r) {
    list.push_back({.q = q.data() + r * key_width,
                    .o = out.data() + r * value_width,
                    .first = r % 3,
                    .last = 55 + r % 5});
  }
  const AttentionPage page = {keys.data(), values.data(), key_width, value_width, 0.25F};
  for (int64_t r = 0; r < rows; r += group) {
    attend_page(page, list.data() + r, std::min(group, rows - r));
  }
  for (int64_t r = 0; r < rows; ++r) {
    AttentionState state = {list[static_cast<size_t>(r)].most, list[static_cast<size_t>(r)].sum,
                            list[static_cast<size_t>(r)].o};
    finish_attention(state, 0.5F, value_width);
  }
  return out;
}

TEST(AttentionPage, BitsDependNeitherOnTheInstructionSetNorOnTheBlock) {
  for (const auto& [k, v] : {std::pair{16, 16}, {24, 20}, {128, 128}, {3, 1}}) {
    const auto alone = attend_rows(k, v, 11, 1, 1);
    EXPECT_EQ(attend_rows(k, v, 11, 11, 1), alone);
    EXPECT_EQ(attend_rows(k, v, 11, 4, 1), alone);
    expect_equal_on_every_target([k = k, v = v] { return attend_rows(k, v, 11, 11, 1); });
  }
}

TEST(AttentionPage, TokensOutsideTheRangeAreNotRead) {
  EXPECT_EQ(attend_rows(16, 16, 9, 9, NAN), attend_rows(16, 16, 9, 9, 1));
}

TEST(VectorMath, RoundsToEightBitsHalfAwayFromZero) {
  const std::vector<float> x = {254, -254, 1, -1, 0.99F, 3, 0};
  std::vector<int8_t> y(14);
  EXPECT_EQ(to_q8(x.data(), 7, 2, y.data()), 2.0F);
  for (const auto& [at, value] : {std::pair{0, 127}, {2, -127}, {4, 1}, {6, -1}, {8, 0}, {10, 2}})
    EXPECT_EQ(y[static_cast<size_t>(at)], value) << at;
  const std::vector<float> zeros(3);
  EXPECT_EQ(to_q8(zeros.data(), 3, 1, y.data()), 0.0F);
  EXPECT_EQ(y[0], 0);
  for (const float bad : {NAN, INFINITY}) {
    const std::vector<float> broken = {1, bad};
    EXPECT_TRUE(std::isnan(to_q8(broken.data(), 2, 1, y.data())));
  }
}

/// An 8-bit page with random numbers and scales.
struct Q8Numbers {
  Q8Numbers(int64_t key_width, int64_t value_width)
      : keys(static_cast<size_t>(kPageTokens * key_width)),
        values(static_cast<size_t>(kPageTokens * value_width)) {
    std::mt19937_64 random(11);
    for (auto* bytes : {&keys, &values})
      for (int8_t& byte : *bytes)
        byte = static_cast<int8_t>(static_cast<int>(random() % 255) - 127);
    for (float& scale : key_scales) scale = std::fabs(scale) / 100;
    for (float& scale : value_scales) scale = std::fabs(scale) / 100;
  }
  Q8AttentionPage page(int64_t key_width, int64_t value_width) const {
    return {keys.data(), values.data(), key_scales.data(), value_scales.data(), key_width,
            value_width, 0.25F};
  }
  std::vector<int8_t> keys, values;
  std::vector<float> key_scales = random_floats(kPageTokens, 12),
                     value_scales = random_floats(kPageTokens, 13);
};

/// e^x by the chain of simd-inl.h, one number at a time.
float exp_reference(float x) {
  if (x < -86.9F) return 0;
  const float bounded = std::min(88.3F, std::max(-87.0F, x));
  const float whole = std::nearbyint(bounded * 1.44269504F);
  float r = std::fma(-whole, 0.693359375F, bounded);
  r = std::fma(-whole, -2.12194440e-4F, r);
  float p = 1.0F / 5040;
  for (const float next : {1.0F / 720, 1.0F / 120, 1.0F / 24, 1.0F / 6, 0.5F, 1.0F, 1.0F})
    p = std::fma(p, r, next);
  return std::bit_cast<float>(std::bit_cast<int32_t>(p) + (static_cast<int32_t>(whole) << 23));
}

/// What attention_kernel.h says, in scalar loops.
void attend_reference(const Q8AttentionPage& page, AttentionRow& row) {
  std::vector<float> p(kPageTokens, -INFINITY);
  float most = row.most;
  for (int64_t t = row.first; t < row.last; ++t) {
    float s = 0;
    for (int64_t d = 0; d < page.key_width; ++d)
      s = std::fma(row.q[d], static_cast<float>(page.keys[d * kPageTokens + t]), s);
    p[static_cast<size_t>(t)] = s * page.scale * page.key_scales[t];
    most = std::max(most, p[static_cast<size_t>(t)]);
  }
  std::vector<float> lanes(16);
  for (float& weight : p) weight = exp_reference(weight - most);
  for (size_t t = 0; t < p.size(); ++t) lanes[t % 16] = t < 16 ? p[t] : lanes[t % 16] + p[t];
  for (size_t half = 8; half > 0; half /= 2)
    for (size_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  const float shrink = row.sum == 0 ? 0 : exp_reference(row.most - most);
  row.sum = row.sum * shrink + lanes[0];
  row.most = most;
  for (int64_t d = 0; d < page.value_width; ++d) {
    float o = row.o[d] * shrink;
    for (int64_t t = row.first; t < row.last; ++t)
      o = std::fma(p[static_cast<size_t>(t)] * page.value_scales[t],
                   static_cast<float>(page.values[t * page.value_width + d]), o);
    row.o[d] = o;
  }
}

/// Rows over the page twice, so that a state is there already. All states, one after the other.
template <class Attend>
std::vector<float> q8_rows(const Q8AttentionPage& page, const Attend& attend) {
  constexpr int64_t kRows = 11;
  const auto q = random_floats(kRows * page.key_width, 14);
  std::vector<float> out(static_cast<size_t>(kRows * page.value_width));
  std::vector<AttentionRow> rows;
  for (int64_t r = 0; r < kRows; ++r)
    rows.push_back({.q = q.data() + r * page.key_width,
                    .o = out.data() + r * page.value_width,
                    .first = r % 2,
                    .last = 62 + r / 6});
  for (int twice = 0; twice < 2; ++twice) attend(rows);
  for (const AttentionRow& row : rows) out.insert(out.end(), {row.most, row.sum});
  return out;
}

TEST(AttentionPage, EightBitsGiveTheBitsOfScalarLoops) {
  for (const auto& [k, v] : {std::pair{16, 16}, {24, 20}, {128, 128}, {3, 1}}) {
    const Q8Numbers numbers(k, v);
    const Q8AttentionPage page = numbers.page(k, v);
    const auto expected = q8_rows(page, [&](std::vector<AttentionRow>& rows) {
      for (AttentionRow& row : rows) attend_reference(page, row);
    });
    for (const int64_t block : {1, 4, 11}) {
      const auto in_blocks = [&](std::vector<AttentionRow>& rows) {
        const auto count = static_cast<int64_t>(rows.size());
        for (int64_t r = 0; r < count; r += block)
          attend_page(page, rows.data() + r, std::min(block, count - r));
      };
      EXPECT_EQ(q8_rows(page, in_blocks), expected) << k << ' ' << v << ' ' << block;
      expect_equal_on_every_target([&] { return q8_rows(page, in_blocks); });
    }
  }
}

TEST(AttentionPage, MergingAnEmptyStateChangesNothing) {
  auto values = random_floats(8, 10), before = values;
  std::vector<float> none(8);
  AttentionState state = {1.5F, 2, values.data()}, empty = {-INFINITY, 0, none.data()};
  merge_attention(empty, 8, state);
  EXPECT_EQ(values, before);
  EXPECT_EQ(state.sum, 2);
  merge_attention(state, 8, empty);
  EXPECT_EQ(none, before);
  EXPECT_EQ(empty.most, 1.5F);
}

}  // namespace
}  // namespace cadre::engine
