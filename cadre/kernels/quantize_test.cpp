#include <cmath>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/kernels/panels_test_kit.h"

namespace cadre::kernels {
namespace {

const std::vector<BlockType> kWritable = {BlockType::kF32,  BlockType::kF16,  BlockType::kBF16,
                                          BlockType::kQ8_0, BlockType::kQ4_0, BlockType::kQ4_K,
                                          BlockType::kQ6_K};

class Writing : public testing::TestWithParam<BlockType> {};
INSTANTIATE_TEST_SUITE_P(Formats, Writing, testing::ValuesIn(kWritable),
                         [](const auto& info) { return std::string(block_info(info.param).name); });

Floats there_and_back(BlockType type, const Floats& values) {
  const auto count = static_cast<int64_t>(values.size());
  std::vector<std::byte> blocks(row_bytes(type, count));
  quantize(type, values.data(), count, blocks.data());
  Floats back(count);
  dequantize(type, blocks.data(), count, back.data());
  return back;
}

double squared_error(BlockType type, const Floats& values) {
  const Floats back = there_and_back(type, values);
  double sum = 0;
  for (size_t i = 0; i < values.size(); ++i) sum += std::pow(double{back[i]} - values[i], 2);
  return sum / static_cast<double>(values.size());
}

/// Largest error as a share of the largest magnitude of the block of 32 it stands in (256 for
/// K-quants, whose sub-blocks share their scale's scale).
double worst_share(BlockType type) {
  switch (type) {
    case BlockType::kF32:
      return 0;
    case BlockType::kF16:
      return 0.0005;
    case BlockType::kBF16:
      return 0.004;
    case BlockType::kQ8_0:
      return 0.5 / 127 + 0.0006;
    case BlockType::kQ4_0:
      return 1.0 / 8 + 0.001;  // the end opposite to the extreme is one step short
    case BlockType::kQ4_K:
      return 0.15;
    default:
      return 0.05;
  }
}

TEST_P(Writing, ErrorStaysWithinItsBound) {
  for (const float size : {1.0f, 1e-3f, 100.0f}) {
    const Floats values = random_floats(256 * 20, 3, size);
    const Floats back = there_and_back(GetParam(), values);
    for (size_t start = 0; start < values.size(); start += 256) {
      float most = 0;
      for (size_t i = start; i < start + 256; ++i) most = std::max(most, std::abs(values[i]));
      for (size_t i = start; i < start + 256; ++i) {
        ASSERT_LE(std::abs(back[i] - values[i]), worst_share(GetParam()) * most) << i;
      }
    }
  }
}

TEST_P(Writing, ZerosStayZeros) {
  EXPECT_EQ(there_and_back(GetParam(), Floats(512, 0.0f)), Floats(512, 0.0f));
}

TEST_P(Writing, ConstantBlocksKeepTheirValue) {
  for (const float value : {1.0f, -1.0f, 0.25f, -3.0f}) {
    const Floats back = there_and_back(GetParam(), Floats(512, value));
    for (const float b : back) ASSERT_NEAR(b, value, 0.012 * std::abs(value));
  }
}

TEST_P(Writing, OneLargeValueAmongZeros) {
  for (const float value : {5.0f, -5.0f}) {
    Floats values(512, 0.0f);
    values[77] = value;
    const Floats back = there_and_back(GetParam(), values);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(back[i], i == 77 ? value : 0, 0.02 * 5) << i;
    }
  }
}

TEST_P(Writing, TinyAndHugeBlocksStayFinite) {
  // Half floats hold 6e-8 to 65504: below the scale becomes 0, above values are out of range.
  for (const float size : {1e-42f, 1e-30f, 1e-12f, 1e-7f, 1e3f, 1e4f}) {
    const Floats values = random_floats(512, 5, size);
    for (const float back : there_and_back(GetParam(), values)) {
      ASSERT_TRUE(std::isfinite(back)) << size;
      ASSERT_LE(std::abs(back), 10 * size + 1e-6) << size;
    }
  }
}

TEST(Quantize, FinerFormatsHaveSmallerErrors) {
  const Floats values = random_floats(256 * 200, 1);
  const double q4_0 = squared_error(BlockType::kQ4_0, values);
  const double q4_k = squared_error(BlockType::kQ4_K, values);
  const double q6_k = squared_error(BlockType::kQ6_K, values);
  const double q8_0 = squared_error(BlockType::kQ8_0, values);
  EXPECT_GT(q4_0, 1.1 * q4_k);
  EXPECT_GT(q4_k, 4 * q6_k);
  EXPECT_GT(q6_k, 2 * q8_0);
  // Of a unit gaussian: 4.5 bits leave about 1 %, 8.5 bits 0.005 %.
  EXPECT_LT(q4_0, 0.01);
  EXPECT_LT(q8_0, 6e-5);
}

TEST(Quantize, AsymmetricDataGainsFromMinima) {
  Floats values = random_floats(256 * 20, 1);
  for (float& value : values) value = std::abs(value) - 3.0f;
  EXPECT_GT(squared_error(BlockType::kQ4_0, values), 3 * squared_error(BlockType::kQ4_K, values));
}

TEST(Quantize, FormatsThatCannotBeWrittenSaySo) {
  const Floats values(256);
  std::vector<std::byte> blocks(1024);
  for (const BlockType type : kAllTypes) {
    if (std::find(kWritable.begin(), kWritable.end(), type) != kWritable.end()) continue;
    EXPECT_THROW(quantize(type, values.data(), 256, blocks.data()), UsageError);
  }
  EXPECT_THROW(quantize(BlockType::kQ4_K, values.data(), 32, blocks.data()), UsageError);
}

TEST(Quantize, Bfloat16RoundsToNearestAndKeepsNan) {
  const float tie = 1.0f + 0x1p-8f, above = 1.0f + 3 * 0x1p-8f;
  const Floats back = there_and_back(
      BlockType::kBF16, {tie, above, std::numeric_limits<float>::quiet_NaN(), 3.4e38f});
  EXPECT_EQ(back[0], 1.0f);
  EXPECT_EQ(back[1], 1.0f + 0x1p-6f);
  EXPECT_TRUE(std::isnan(back[2]));
  EXPECT_TRUE(std::isinf(back[3]));
}

}  // namespace
}  // namespace cadre::kernels
