// A panel's blocks in registers: codes unpacked to bytes, scales to numbers. Compiled once per
// target, after hwy/foreach_target.h.

#if defined(CADRE_KERNELS_PANEL_BLOCK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CADRE_KERNELS_PANEL_BLOCK_INL_H_
#undef CADRE_KERNELS_PANEL_BLOCK_INL_H_
#else
#define CADRE_KERNELS_PANEL_BLOCK_INL_H_
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "cadre/kernels/panel_layout.h"
#include "cadre/kernels/panel_simd-inl.h"

#if CADRE_PANEL_SIMD
HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

/// Bits kFrom .. of each byte, moved to bits kTo .. and masked.
template <int kFrom, int kTo, uint32_t kMask>
HWY_INLINE VecU field(VecU plane) {
  const VecU mask = hn::Set(TagU(), kMask << kTo);
  if constexpr (kTo >= kFrom) return hn::And(hn::ShiftLeft<kTo - kFrom>(plane), mask);
  if constexpr (kTo < kFrom) return hn::And(hn::ShiftRight<kFrom - kTo>(plane), mask);
}

/// Adds the 2-bit plane at bit kTo of the codes.
template <int kTo, size_t... k>
HWY_INLINE void add_pairs(VecU low, VecU high, VecU (&codes)[8], std::index_sequence<k...>) {
  ((codes[k] = hn::Or(codes[k], field<2 * (k % 4), kTo, 0x03030303u>(k < 4 ? low : high))), ...);
}

/// Adds the 1-bit plane at bit kTo of the codes.
template <int kTo, size_t... k>
HWY_INLINE void add_bits(VecU bits, VecU (&codes)[8], std::index_sequence<k...>) {
  ((codes[k] = hn::Or(codes[k], field<k, kTo, 0x01010101u>(bits))), ...);
}

/// The eight vectors of codes of a block, for `part` of the rows.
template <BlockType kType>
HWY_INLINE void unpack(const std::byte* plane, int part, VecU (&codes)[8]) {
  constexpr PanelLayout kLayout = panel_layout(kType);
  const TagU d;
  plane += part * kLanes * 4;
  if constexpr (kLayout.bytes) {
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) codes[k] = load_as(d, plane + 64 * k);
    return;
  }
  if constexpr (!kLayout.nibbles) {
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) codes[k] = hn::Zero(d);
  } else {
    const VecU mask = hn::Set(d, 0x0f0f0f0fu);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      const VecU both = load_as(d, plane + 64 * k);
      codes[k] = hn::And(both, mask);
      codes[k + 4] = hn::And(hn::ShiftRight<4>(both), mask);
    }
    plane += 256;
  }
  if constexpr (kLayout.has_table) {
    alignas(16) static constexpr std::array<uint8_t, 16> kTable = kLayout.table;
    const hn::Repartition<uint8_t, TagU> bytes;
    const auto table = hn::LoadDup128(bytes, kTable.data());
#pragma GCC unroll 8
    for (int k = 0; k < 8; ++k) {
      codes[k] = hn::BitCast(d, hn::TableLookupBytes(table, hn::BitCast(bytes, codes[k])));
    }
  }
  if constexpr (kLayout.pairs) {
    add_pairs<kLayout.nibbles ? 4 : 0>(load_as(d, plane), load_as(d, plane + 64), codes,
                                       std::make_index_sequence<8>());
    plane += 128;
  }
  if constexpr (kLayout.bits) {
    add_bits<kLayout.nibbles ? 4 : 2>(load_as(d, plane), codes, std::make_index_sequence<8>());
  }
}

constexpr int most_code(BlockType type) {
  const PanelLayout layout = panel_layout(type);
  if (layout.bytes) return 255;
  if (layout.has_table) return *std::max_element(layout.table.begin(), layout.table.end());
  return (1 << ((layout.nibbles ? 4 : 0) + (layout.pairs ? 2 : 0) + (layout.bits ? 1 : 0))) - 1;
}

/// Scales of a block, for some of the rows; what the format does not have stays unused.
struct BlockScales {
  VecF d, dmin;
  VecI first, second;  ///< of the halves
  VecI minima;         ///< of the halves: 16 bits each
};

template <BlockType kType>
HWY_INLINE BlockScales load_scales(const std::byte* header, const std::byte* block, int part) {
  constexpr PanelLayout kLayout = panel_layout(kType);
  const TagF d;
  const TagI di;
  BlockScales s = {hn::Zero(d), hn::Zero(d), hn::Zero(di), hn::Zero(di), hn::Zero(di)};
  header += 2 * part * kLanes;
  const std::byte* low = block + part * kLanes;
  const std::byte* high = low + 16;
  if constexpr (kLayout.scale == PanelScale::kHalf) {
    s.d = load_halves(block + 2 * part * kLanes);
  } else if constexpr (kLayout.scale == PanelScale::kExponent) {
    const VecI e = load_unsigned_bytes(low);
    const VecI one = hn::Set(di, 1);
    const VecI normal = hn::ShiftLeft<23>(hn::Sub(e, one));
    const VecI tiny = hn::ShiftLeft<21>(hn::Add(e, one));
    s.d = hn::BitCast(d, hn::IfThenElse(hn::Gt(e, one), normal, tiny));
  } else if constexpr (kLayout.scale == PanelScale::kWithMinima) {
    s.d = hn::Mul(load_halves(header), hn::ConvertTo(d, load_unsigned_bytes(low)));
    s.dmin = hn::Mul(load_halves(header + 32), hn::ConvertTo(d, load_unsigned_bytes(high)));
  } else if constexpr (kLayout.scale == PanelScale::kHalves) {
    s.d = load_halves(header);
    s.first = load_signed_bytes(low);
    s.second = load_signed_bytes(high);
  } else {
    const VecI mask = hn::Set(di, 15);
    const VecI a = load_unsigned_bytes(low), b = load_unsigned_bytes(high);
    s.d = load_halves(header);
    s.dmin = load_halves(header + 32);
    s.first = hn::And(a, mask);
    s.second = hn::And(b, mask);
    s.minima = hn::Or(hn::ShiftRight<4>(a), hn::ShiftLeft<16>(hn::ShiftRight<4>(b)));
  }
  return s;
}

/// Two signed 16-bit factors as one word for pair_dot.
constexpr int32_t pair(int first, int second) {
  return static_cast<int32_t>((static_cast<uint32_t>(second) << 16) |
                              (static_cast<uint32_t>(first) & 0xffffu));
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // CADRE_PANEL_SIMD

#endif  // toggle
