#pragma once

/// Random weights of every format, random activations, and products of them.

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "cadre/kernels/blocks.h"
#include "cadre/kernels/panels.h"
#include "cadre/kernels/test_util.h"

namespace cadre::kernels {

inline const std::vector<BlockType> kAllTypes = {
    BlockType::kF32,  BlockType::kF16,  BlockType::kBF16,   BlockType::kQ8_0,
    BlockType::kQ4_0, BlockType::kQ2_K, BlockType::kQ3_K,   BlockType::kQ4_K,
    BlockType::kQ5_K, BlockType::kQ6_K, BlockType::kIQ4_NL, BlockType::kMXFP4};

inline bool is_float(BlockType type) { return block_info(type).elements == 1; }

/// A width with `blocks` of the format's blocks, odd for float formats.
inline int64_t columns_of(BlockType type, int64_t blocks) {
  return is_float(type) ? 32 * blocks + 1 : block_info(type).elements * blocks;
}

/// Where a block's half floats stand.
inline std::vector<int64_t> halves_at(BlockType type) {
  switch (type) {
    case BlockType::kMXFP4:
      return {};
    case BlockType::kQ2_K:
      return {80, 82};
    case BlockType::kQ3_K:
      return {108};
    case BlockType::kQ6_K:
      return {208};
    case BlockType::kQ4_K:
    case BlockType::kQ5_K:
      return {0, 2};
    default:
      return {0};
  }
}

/// Gives blocks random scales of usual size.
inline void randomize_scales(BlockType type, uint64_t seed, std::vector<std::byte>& blocks) {
  Random random(seed);
  const int64_t bytes = block_info(type).bytes;
  for (int64_t block = 0; block < static_cast<int64_t>(blocks.size()); block += bytes) {
    if (type == BlockType::kMXFP4) blocks[block] = static_cast<std::byte>(118 + random.below(6));
    for (const int64_t at : halves_at(type)) {
      const uint16_t half = float_to_half(0.02f * random.normal());
      std::memcpy(blocks.data() + block + at, &half, 2);
    }
  }
}

/// Random bytes as blocks: every pattern a file may hold but scales that are not finite.
inline std::vector<std::byte> random_blocks(BlockType type, int64_t count, uint64_t seed) {
  const BlockInfo& info = block_info(type);
  std::vector<std::byte> blocks(count / info.elements * info.bytes);
  if (is_float(type)) {
    quantize(type, random_floats(count, seed).data(), count, blocks.data());
    return blocks;
  }
  Random random(seed);
  for (std::byte& b : blocks) b = static_cast<std::byte>(random.below(256));
  randomize_scales(type, seed + 1, blocks);
  return blocks;
}

struct TestWeights {
  BlockType type;
  int64_t rows, columns;
  std::vector<std::byte> blocks, panel;

  TestWeights(BlockType type, int64_t rows, int64_t columns, uint64_t seed)
      : type(type),
        rows(rows),
        columns(columns),
        blocks(random_blocks(type, rows * columns, seed)),
        panel(panel_bytes(type, rows, columns), std::byte{0xAA}) {
    pack_panels(type, rows, columns, blocks.data(), 0, panels(), panel.data());
  }

  int64_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  PanelMatrix matrix() const { return {type, rows, columns, panel.data()}; }
  Floats decoded() const {
    Floats values(rows * columns);
    dequantize(type, blocks.data(), rows * columns, values.data());
    return values;
  }
};

using PanelMatmul = decltype(panel_matmul);

struct TestActivations {
  int64_t tokens, columns;
  Floats values;
  std::vector<int8_t> q;
  Floats scale;
  std::vector<int16_t> sums;

  TestActivations(int64_t tokens, int64_t columns, uint64_t seed)
      : tokens(tokens),
        columns(columns),
        values(random_floats(tokens * columns, seed)),
        q(tokens * columns),
        scale(tokens * (columns / 32)),
        sums(tokens * (columns / 32) * 2) {
    quantize();
  }

  void quantize() {
    if (columns % 32 == 0) {
      quantize_activations_reference(values.data(), tokens, columns, q.data(), scale.data(),
                                     sums.data());
    }
  }

  QuantizedActivations view() const {
    return {q.data(), scale.data(), sums.data(), values.data(), columns};
  }

  /// What the product of this format multiplies.
  double value(BlockType type, int64_t t, int64_t c) const {
    const int64_t at = t * columns + c;
    return is_float(type) ? values[at] : static_cast<double>(scale[at / 32]) * q[at];
  }

  /// y [tokens, rows]; what the product must not write holds 12345.
  Floats product(const TestWeights& w, int64_t first, int64_t last, PanelMatmul* matmul) const {
    Floats y(tokens * w.rows, 12345.0f);
    matmul(w.matrix(), view(), tokens, first, last, y.data(), w.rows);
    return y;
  }
};

/// Runs the test on every instruction set this machine has kernels for.
inline void on_every_target(const std::function<void()>& test) {
  test();
  const int64_t ours = HWY_AVX2 | HWY_AVX3 | HWY_AVX3_DL | HWY_NEON;
  for (int64_t rest = hwy::SupportedTargets() & ours; rest != 0; rest &= rest - 1) {
    const int64_t target = rest & -rest;
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    test();
    hwy::SetSupportedTargetsForTest(0);
    if (testing::Test::HasFatalFailure()) return;
  }
}

/// NaN equals NaN, whatever its bits.
inline void expect_same(const Floats& got, const Floats& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(got[i]) && std::isnan(want[i])) continue;
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
        << "at " << i << ": " << got[i] << " for " << want[i];
  }
}

/// Names the cases of a test over formats.
inline std::string format_name(const testing::TestParamInfo<BlockType>& info) {
  return std::string(block_info(info.param).name);
}

}  // namespace cadre::kernels
