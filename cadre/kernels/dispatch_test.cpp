#include "cadre/kernels/dispatch.h"

#include <limits>

#include "cadre/base/error.h"
#include "cadre/kernels/scratch.h"
#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<int32_t> random_experts(int64_t pairs, int64_t experts, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> expert(pairs);
  for (int32_t& e : expert) e = static_cast<int32_t>(random.below(experts));
  return expert;
}

TEST(SortByExpert, IsAStableCountingSort) {
  for (const auto& [pairs, experts] : std::vector<std::pair<int64_t, int64_t>>{
           {0, 1}, {0, 0}, {1, 1}, {10, 1}, {10, 64}, {1000, 3}, {100000, 64}, {40000, 512}}) {
    const auto expert = random_experts(pairs, experts, pairs);
    std::vector<int64_t> offsets(experts + 1, -1);
    std::vector<int64_t> order(pairs, -1);
    sort_by_expert(expert.data(), pairs, experts, offsets.data(), order.data());
    std::vector<int64_t> want;
    for (int64_t e = 0; e < experts && pairs < 50000; ++e) {
      ASSERT_EQ(offsets[e], static_cast<int64_t>(want.size()));
      for (int64_t pair = 0; pair < pairs; ++pair) {
        if (expert[pair] == e) want.push_back(pair);
      }
    }
    ASSERT_EQ(offsets[experts], pairs);
    for (int64_t i = 1; i < pairs; ++i) {
      const auto before = std::pair(expert[order[i - 1]], order[i - 1]);
      ASSERT_LT(before, std::pair(expert[order[i]], order[i]));
    }
    if (!want.empty()) {
      ASSERT_EQ(order, want);
    }
  }
}

TEST(SortByExpert, IdOutOfRangeIsAnError) {
  for (const int32_t bad : {-1, 4}) {
    for (const int64_t pairs : {8, 200000}) {
      std::vector<int32_t> expert(pairs);
      expert[pairs - 1] = bad;
      std::vector<int64_t> offsets(5), order(pairs);
      EXPECT_THROW(sort_by_expert(expert.data(), pairs, 4, offsets.data(), order.data()), Error);
    }
  }
}

/// Random tokens of 0 to 4 pairs, the pairs' slots shuffled.
struct Routing {
  std::vector<int64_t> token_offsets{0}, slot_of_pair;
  Floats weight;

  Routing(int64_t tokens, uint64_t seed) {
    Random random(seed);
    for (int64_t t = 0; t < tokens; ++t) {
      token_offsets.push_back(token_offsets.back() + static_cast<int64_t>(random.below(5)));
    }
    for (int64_t pair = 0; pair < pairs(); ++pair) slot_of_pair.push_back(pair);
    std::shuffle(slot_of_pair.begin(), slot_of_pair.end(), random);
    weight = random_floats(pairs(), seed + 1);
  }

  int64_t tokens() const { return static_cast<int64_t>(token_offsets.size()) - 1; }
  int64_t pairs() const { return token_offsets.back(); }
};

TEST(Rows, GatherCopies) {
  for (const int64_t width : {1, 3, 64, 513}) {
    const Floats x = random_floats(10 * width, 1);
    const std::vector<int64_t> rows{9, 0, 0, 5, 9};
    Floats y(5 * width, kNan);
    gather_rows(x.data(), rows.data(), 5, width, y.data());
    for (int64_t i = 0; i < 5 * width; ++i) {
      ASSERT_EQ(y[i], x[rows[i / width] * width + i % width]);
    }
  }
}

TEST(Rows, GatherCopiesMoreThanCachesHold) {
  constexpr int64_t kWidth = 1024, kSlots = 16384;
  const Floats x = random_floats(7 * kWidth, 1);
  std::vector<int64_t> rows(kSlots);
  for (int64_t slot = 0; slot < kSlots; ++slot) rows[slot] = slot * 5 % 7;
  Scratch scratch;
  float* y = scratch.floats(kSlots * kWidth);
  gather_rows(x.data(), rows.data(), kSlots, kWidth, y);
  for (int64_t slot = 0; slot < kSlots; ++slot) {
    ASSERT_TRUE(
        std::equal(y + slot * kWidth, y + (slot + 1) * kWidth, x.begin() + rows[slot] * kWidth))
        << slot;
  }
}

void expect_combine(const Routing& r, int64_t width, const float* weight) {
  const Floats x = random_floats(r.pairs() * width, 7);
  const Floats dy = random_floats(r.tokens() * width, 8);
  std::vector<double> y(r.tokens() * width), dx(r.pairs() * width), dweight(r.pairs());
  for (int64_t t = 0; t < r.tokens(); ++t) {
    for (int64_t pair = r.token_offsets[t]; pair < r.token_offsets[t + 1]; ++pair) {
      const double factor = weight == nullptr ? 1 : weight[pair];
      for (int64_t i = 0; i < width; ++i) {
        const int64_t at = r.slot_of_pair[pair] * width + i;
        y[t * width + i] += factor * x[at];
        dx[at] = factor * dy[t * width + i];
        dweight[pair] += static_cast<double>(x[at]) * dy[t * width + i];
      }
    }
  }
  Floats got_y(y.size(), kNan), got_dx(dx.size(), kNan), got_dweight(dweight.size(), kNan);
  combine_rows(x.data(), r.token_offsets.data(), r.slot_of_pair.data(), weight, r.tokens(), width,
               got_y.data());
  combine_rows_backward(dy.data(), x.data(), r.token_offsets.data(), r.slot_of_pair.data(), weight,
                        r.tokens(), width, got_dx.data(), got_dweight.data());
  expect_close(got_y, y, 1e-5, "y");
  expect_close(got_dx, dx, 1e-6, "dx");
  expect_close(got_dweight, dweight, 1e-4, "dweight");
  combine_rows_backward(dy.data(), x.data(), r.token_offsets.data(), r.slot_of_pair.data(), weight,
                        r.tokens(), width, got_dx.data(), nullptr);
}

TEST(Rows, CombineAndItsGradientEqualTheReference) {
  for (const int64_t tokens : {0, 1, 50, 3000}) {
    for (const int64_t width : {1, 5, 64, 77}) {
      const Routing r(tokens, tokens + width);
      expect_combine(r, width, r.weight.data());
      expect_combine(r, width, nullptr);
    }
  }
}

TEST(Rows, CombineGivesTheSameBitsForAnyTeam) {
  const Routing r(3000, 3);
  const Floats x = random_floats(r.pairs() * 100, 7);
  expect_same_bits([&] {
    Floats y(r.tokens() * 100);
    combine_rows(x.data(), r.token_offsets.data(), r.slot_of_pair.data(), r.weight.data(),
                 r.tokens(), 100, y.data());
    return y;
  });
}

}  // namespace
}  // namespace cadre::kernels
