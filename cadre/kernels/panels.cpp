#include "cadre/kernels/panels.h"

#include <algorithm>
#include <cstring>

#include "cadre/kernels/panel_layout.h"
#include "cadre/kernels/panel_product.h"
#include "cadre/kernels/panel_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/panels.cpp"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/panel_block-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {
#if CADRE_PANEL_SIMD

/// Tokens of a register tile at most. AVX-512's registers hold their sums and eight vectors of
/// codes; float formats have no codes and want eight sums, or each fma waits for the one before.
/// AVX2 has half the registers, NEON needs four times as many.
constexpr int most_tokens(BlockType type) {
  constexpr bool kWide = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL;
  if (panel_layout(type).is_float()) return kWide ? 8 : 6;
  return kWide ? 6 : 4;
}

/// How far ahead of use weights are fetched: the hardware's own look-ahead stops at each page and
/// reaches 60 % of a plain read's bandwidth.
constexpr int64_t kAhead = 9216;

/// What a tile multiplies: one row of each array per token.
template <int kTokens>
struct TileInput {
  const int8_t* q[kTokens];
  const float* scale[kTokens];
  const int16_t* sums[kTokens];
  const float* values[kTokens];
};

HWY_INLINE void prefetch(const std::byte* at, int64_t bytes, const std::byte* end) {
  if (at + kAhead + bytes > end) return;
  for (int64_t i = 0; i < bytes; i += 64) hwy::Prefetch(at + kAhead + i);
}

/// I of one token: the dots start at minus the offset's share, so that codes may stay unsigned.
template <BlockType kType>
HWY_INLINE VecI block_product(const VecU (&codes)[8], const BlockScales& s, const int8_t* q,
                              VecI sums) {
  constexpr PanelLayout kLayout = panel_layout(kType);
  constexpr int kMost = most_code(kType);
  constexpr bool kHalved =
      kLayout.scale == PanelScale::kHalves || kLayout.scale == PanelScale::kHalvesWithMinima;
  const TagI d;
  VecI first = hn::Zero(d), second = hn::Zero(d);
  if constexpr (kLayout.offset != 0) {
    first = pair_dot(sums, hn::Set(d, pair(-kLayout.offset, kHalved ? 0 : -kLayout.offset)));
    if constexpr (kHalved) second = pair_dot(sums, hn::Set(d, pair(0, -kLayout.offset)));
  }
  if constexpr (!kHalved) return dots<kMost, 0, 8>(first, codes, q);
  first = dots<kMost, 0, 4>(first, codes, q);
  second = dots<kMost, 4, 8>(second, codes, q);
  return hn::Add(hn::Mul(first, s.first), hn::Mul(second, s.second));
}

/// One step of the chain for one token.
template <BlockType kType>
HWY_INLINE VecF chain_step(VecF acc, const VecU (&codes)[8], const BlockScales& s, const int8_t* q,
                           float scale, const int16_t* block_sums) {
  constexpr PanelLayout kLayout = panel_layout(kType);
  const TagF d;
  const TagI di;
  const VecI sums = hn::Set(di, load_word(block_sums));
  const VecF dx = hn::Set(d, scale);
  const VecI product = block_product<kType>(codes, s, q, sums);
  acc = hn::MulAdd(hn::ConvertTo(d, product), hn::Mul(s.d, dx), acc);
  if constexpr (kLayout.has_minima()) {
    const VecI minimum = kLayout.scale == PanelScale::kHalvesWithMinima
                             ? pair_dot(sums, s.minima)
                             : pair_dot(sums, hn::Set(di, pair(1, 1)));
    acc = hn::NegMulAdd(hn::ConvertTo(d, minimum), hn::Mul(s.dmin, dx), acc);
  }
  return acc;
}

template <int kTokens>
using TileSums = VecF[kParts][kTokens];

template <BlockType kType, int kTokens>
HWY_INLINE void block_tile(const std::byte* header, const std::byte* block, int64_t b,
                           const TileInput<kTokens>& x, TileSums<kTokens>& acc) {
  constexpr PanelLayout kLayout = panel_layout(kType);
#pragma GCC unroll 4
  for (int part = 0; part < kParts; ++part) {
    VecU codes[8];
    unpack<kType>(block + kLayout.scale_bytes, part, codes);
    const BlockScales s = load_scales<kType>(header, block, part);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      acc[part][t] = chain_step<kType>(acc[part][t], codes, s, x.q[t] + 32 * b, x.scale[t][b],
                                       x.sums[t] + 2 * b);
    }
  }
}

template <BlockType kType, int kTokens>
HWY_INLINE void quantised_tile(const std::byte* panel, int64_t columns, const std::byte* end,
                               const TileInput<kTokens>& x, TileSums<kTokens>& acc) {
  constexpr PanelLayout kLayout = panel_layout(kType);
  constexpr int64_t kBlocks = kLayout.super_columns / kActivationBlock;
  for (int64_t b = 0; b < columns / kActivationBlock; b += kBlocks) {
    const std::byte* block = panel + kLayout.header_bytes;
    for (int64_t i = 0; i < kBlocks; ++i, block += kLayout.block_bytes()) {
      prefetch(block, kLayout.block_bytes(), end);
      block_tile<kType, kTokens>(panel, block, b + i, x, acc);
    }
    panel += kLayout.super_bytes();
  }
}

/// Sixteen floats, half floats or bfloat16 of a column.
template <BlockType kType>
HWY_INLINE VecF load_column(const std::byte* column, int part) {
  const TagF d;
  if constexpr (kType == BlockType::kF32) return load_as(d, column + 4 * part * kLanes);
  if constexpr (kType == BlockType::kF16) return load_halves(column + 2 * part * kLanes);
  const auto upper = load_as(hn::Rebind<uint16_t, TagU>(), column + 2 * part * kLanes);
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(TagU(), upper)));
}

template <BlockType kType, int kTokens>
HWY_INLINE void float_tile(const std::byte* panel, int64_t columns, const std::byte* end,
                           const TileInput<kTokens>& x, TileSums<kTokens>& acc) {
  constexpr int64_t kBytes = kPanelRows * (kType == BlockType::kF32 ? 4 : 2);
  for (int64_t c = 0; c < columns; ++c, panel += kBytes) {
    if (c % 8 == 0) prefetch(panel, 8 * kBytes, end);
    VecF w[kParts];
#pragma GCC unroll 4
    for (int part = 0; part < kParts; ++part) w[part] = load_column<kType>(panel, part);
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) {
      const VecF value = hn::Set(TagF(), x.values[t][c]);
#pragma GCC unroll 4
      for (int part = 0; part < kParts; ++part) {
        acc[part][t] = hn::MulAdd(w[part], value, acc[part][t]);
      }
    }
  }
}

/// out [kTokens, 16] = panel * x.
template <BlockType kType, int kTokens>
HWY_NOINLINE void panel_tile(const std::byte* panel, int64_t columns, const std::byte* end,
                             const TileInput<kTokens>& x, float* out) {
  const TagF d;
  TileSums<kTokens> acc;
#pragma GCC unroll 4
  for (int part = 0; part < kParts; ++part) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) acc[part][t] = hn::Zero(d);
  }
  if constexpr (panel_layout(kType).is_float()) {
    float_tile<kType, kTokens>(panel, columns, end, x, acc);
  } else {
    quantised_tile<kType, kTokens>(panel, columns, end, x, acc);
  }
#pragma GCC unroll 4
  for (int part = 0; part < kParts; ++part) {
#pragma GCC unroll 8
    for (int t = 0; t < kTokens; ++t) hn::StoreU(acc[part][t], d, out + 16 * t + part * kLanes);
  }
}

/// One panel, its weights and the inputs of all tokens.
struct PanelTask {
  const std::byte* panel;
  const std::byte* end;  ///< of the matrix: what follows the caller's part comes next, as a rule
  const QuantizedActivations& x;
  int64_t rows;  ///< of the panel that are there
  PanelOutput output;
};

template <BlockType kType, int kTokens>
HWY_INLINE void tile_of_tokens(const PanelTask& task, int64_t first_token, int64_t token) {
  const QuantizedActivations& x = task.x;
  TileInput<kTokens> input;
  const int64_t blocks = x.columns / kActivationBlock;
  for (int t = 0; t < kTokens; ++t) {
    const int64_t at = first_token + token + t;
    const int64_t row = x.rows == nullptr ? at : x.rows[at];
    if constexpr (panel_layout(kType).is_float()) {
      input.values[t] = x.values + row * x.columns;
    } else {
      input.q[t] = x.q + row * x.columns;
      input.scale[t] = x.scale + row * blocks;
      input.sums[t] = x.sums + row * blocks * 2;
    }
  }
  alignas(64) float out[kTokens * kPanelRows];
  panel_tile<kType, kTokens>(task.panel, x.columns, task.end, input, out);
  for (int t = 0; t < kTokens; ++t) {
    const int64_t row = task.output.rows == nullptr ? token + t : task.output.rows[token + t];
    std::memcpy(task.output.out + row * task.output.stride, out + kPanelRows * t,
                static_cast<size_t>(task.rows) * sizeof(float));
  }
}

/// The tokens left when no whole tile is: at most kTokens.
template <BlockType kType, int kTokens>
HWY_INLINE void last_tile(const PanelTask& task, int64_t first_token, int64_t token,
                          int64_t tokens) {
  if constexpr (kTokens > 0) {
    if (tokens == kTokens) return tile_of_tokens<kType, kTokens>(task, first_token, token);
    last_tile<kType, kTokens - 1>(task, first_token, token, tokens);
  }
}

template <BlockType kType>
void tokens_of_panel(const PanelTask& task, int64_t first_token, int64_t tokens) {
  constexpr int kMost = most_tokens(kType);
  int64_t token = 0;
  for (; tokens - token >= kMost; token += kMost) {
    tile_of_tokens<kType, kMost>(task, first_token, token);
  }
  last_tile<kType, kMost - 1>(task, first_token, token, tokens - token);
}

template <BlockType kType>
void all_panels(const PanelMatrix& weights, const QuantizedActivations& x, const PanelPart& part,
                const PanelOutput& output) {
  const int64_t stride = panel_stride(kType, weights.columns);
  const std::byte* end = weights.data + (weights.rows + kPanelRows - 1) / kPanelRows * stride;
  for (int64_t panel = part.first_panel; panel < part.last_panel; ++panel) {
    PanelOutput here = output;
    here.out += (panel - part.first_panel) * kPanelRows;
    const int64_t rows = std::min(kPanelRows, weights.rows - panel * kPanelRows);
    const PanelTask task = {weights.data + panel * stride, end, x, rows, here};
    tokens_of_panel<kType>(task, part.first_token, part.last_token - part.first_token);
  }
}

void product(const PanelMatrix& weights, const QuantizedActivations& x, const PanelPart& part,
             const PanelOutput& output) {
  switch (weights.type) {
    case BlockType::kF32:
      return all_panels<BlockType::kF32>(weights, x, part, output);
    case BlockType::kF16:
      return all_panels<BlockType::kF16>(weights, x, part, output);
    case BlockType::kBF16:
      return all_panels<BlockType::kBF16>(weights, x, part, output);
    case BlockType::kQ8_0:
      return all_panels<BlockType::kQ8_0>(weights, x, part, output);
    case BlockType::kQ4_0:
      return all_panels<BlockType::kQ4_0>(weights, x, part, output);
    case BlockType::kQ2_K:
      return all_panels<BlockType::kQ2_K>(weights, x, part, output);
    case BlockType::kQ3_K:
      return all_panels<BlockType::kQ3_K>(weights, x, part, output);
    case BlockType::kQ4_K:
      return all_panels<BlockType::kQ4_K>(weights, x, part, output);
    case BlockType::kQ5_K:
      return all_panels<BlockType::kQ5_K>(weights, x, part, output);
    case BlockType::kQ6_K:
      return all_panels<BlockType::kQ6_K>(weights, x, part, output);
    case BlockType::kIQ4_NL:
      return all_panels<BlockType::kIQ4_NL>(weights, x, part, output);
    case BlockType::kMXFP4:
      return all_panels<BlockType::kMXFP4>(weights, x, part, output);
  }
}

#else

void product(const PanelMatrix& weights, const QuantizedActivations& x, const PanelPart& part,
             const PanelOutput& output) {
  panel_product_reference(weights, x, part, output);
}

#endif  // CADRE_PANEL_SIMD
}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(product);

void panel_product(const PanelMatrix& weights, const QuantizedActivations& x, const PanelPart& part,
                   const PanelOutput& output) {
  HWY_DYNAMIC_DISPATCH(product)(weights, x, part, output);
}

void panel_matmul(const PanelMatrix& weights, const QuantizedActivations& x, int64_t tokens,
                  int64_t first_panel, int64_t last_panel, float* y, int64_t y_stride) {
  panel_product(weights, x, {0, tokens, first_panel, last_panel},
                {y + first_panel * kPanelRows, y_stride});
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
