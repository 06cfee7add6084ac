// What the panel kernels need beyond Highway 1.0.3: dots of four bytes a lane, one-rounding
// multiply-add, loads of packed bytes. Compiled once per target, after hwy/foreach_target.h.

#if defined(CADRE_KERNELS_PANEL_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CADRE_KERNELS_PANEL_SIMD_INL_H_
#undef CADRE_KERNELS_PANEL_SIMD_INL_H_
#else
#define CADRE_KERNELS_PANEL_SIMD_INL_H_
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

// Without a fused multiply-add there is no kernel: those machines run the scalar definition.
#undef CADRE_PANEL_SIMD
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
#define CADRE_PANEL_SIMD 0
#else
#define CADRE_PANEL_SIMD 1
#endif

#if CADRE_PANEL_SIMD
HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// Sixteen rows are one vector of AVX-512, two of AVX2, four of NEON.
using TagF = hn::CappedTag<float, 16>;
using TagI = hn::RebindToSigned<TagF>;
using TagU = hn::RebindToUnsigned<TagF>;
using VecF = hn::Vec<TagF>;
using VecI = hn::Vec<TagI>;
using VecU = hn::Vec<TagU>;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(TagF()));
constexpr int kParts = 16 / kLanes;

/// Vector of D from any address.
template <class D>
HWY_INLINE hn::Vec<D> load_as(D d, const std::byte* at) {
  const hn::Repartition<uint8_t, D> bytes;
  return hn::BitCast(d, hn::LoadU(bytes, reinterpret_cast<const uint8_t*>(at)));
}

HWY_INLINE VecF load_halves(const std::byte* at) {
  return hn::PromoteTo(TagF(), load_as(hn::Rebind<hwy::float16_t, TagF>(), at));
}

HWY_INLINE VecI load_unsigned_bytes(const std::byte* at) {
  return hn::PromoteTo(TagI(), load_as(hn::Rebind<uint8_t, TagI>(), at));
}

HWY_INLINE VecI load_signed_bytes(const std::byte* at) {
  return hn::PromoteTo(TagI(), load_as(hn::Rebind<int8_t, TagI>(), at));
}

HWY_INLINE int32_t load_word(const void* at) {
  int32_t word;
  std::memcpy(&word, at, 4);
  return word;
}

#if HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
HWY_INLINE VecI pair_dot(VecI a, VecI b) { return VecI{_mm512_madd_epi16(a.raw, b.raw)}; }
HWY_INLINE VecI byte_pairs(VecU a, VecI b) { return VecI{_mm512_maddubs_epi16(a.raw, b.raw)}; }
#elif HWY_TARGET == HWY_AVX2
HWY_INLINE VecI pair_dot(VecI a, VecI b) { return VecI{_mm256_madd_epi16(a.raw, b.raw)}; }
HWY_INLINE VecI byte_pairs(VecU a, VecI b) { return VecI{_mm256_maddubs_epi16(a.raw, b.raw)}; }
#else
/// Per lane the dot of two 16-bit pairs.
HWY_INLINE VecI pair_dot(VecI a, VecI b) {
  const VecI low =
      hn::Mul(hn::ShiftRight<16>(hn::ShiftLeft<16>(a)), hn::ShiftRight<16>(hn::ShiftLeft<16>(b)));
  return hn::Add(low, hn::Mul(hn::ShiftRight<16>(a), hn::ShiftRight<16>(b)));
}
#endif

/// Codes up to 255: even and odd bytes as 16-bit numbers.
HWY_INLINE VecI dot_wide(VecI acc, VecU codes, int32_t x) {
  const TagI d;
  const hn::Repartition<int16_t, TagI> d16;
  const auto x16 = hn::BitCast(d16, hn::Set(d, x));
  const VecI x_even = hn::BitCast(d, hn::ShiftRight<8>(hn::ShiftLeft<8>(x16)));
  const VecI x_odd = hn::BitCast(d, hn::ShiftRight<8>(x16));
  const VecU even = hn::And(codes, hn::Set(TagU(), 0x00ff00ffu));
  const VecU odd = hn::And(hn::ShiftRight<8>(codes), hn::Set(TagU(), 0x00ff00ffu));
  return hn::Add(
      acc, hn::Add(pair_dot(hn::BitCast(d, even), x_even), pair_dot(hn::BitCast(d, odd), x_odd)));
}

/// acc + the dots of vectors [kFirst, kLast) of codes, each at most kMost, with the signed bytes at
/// x, the same in all lanes: vector k meets bytes 4 k .. 4 k + 3.
template <int kMost, int kFirst, int kLast>
HWY_INLINE VecI dots(VecI acc, const VecU (&codes)[8], const int8_t* x) {
#if HWY_TARGET == HWY_AVX3_DL
  // Written out: Highway 1.0.3 compiles this target without avx512vnni, and the broadcast is free
  // as an operand.
#pragma GCC unroll 8
  for (int k = kFirst; k < kLast; ++k) {
    const auto& word = *reinterpret_cast<const int8_t(*)[4]>(x + 4 * k);
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc.raw) : "v"(codes[k].raw), "m"(word));
  }
  return acc;
#elif HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX2
  // As many sums of two products as 16 bits hold are added before they are widened.
  constexpr int kGroup = std::min(kLast - kFirst, 32767 / (kMost * 254));
  if constexpr (kGroup > 0) {
    const TagI d;
    const hn::Repartition<int16_t, TagI> d16;
#pragma GCC unroll 8
    for (int k = kFirst; k < kLast; k += kGroup) {
      auto sum = hn::Zero(d16);
#pragma GCC unroll 8
      for (int i = k; i < std::min(k + kGroup, kLast); ++i) {
        const VecI word = hn::Set(d, load_word(x + 4 * i));
        sum = hn::Add(sum, hn::BitCast(d16, byte_pairs(codes[i], word)));
      }
      acc = hn::Add(acc, pair_dot(hn::BitCast(d, sum), hn::Set(d, 0x00010001)));
    }
    return acc;
  }
#endif
#if HWY_TARGET != HWY_AVX3_DL
#pragma GCC unroll 8
  for (int k = kFirst; k < kLast; ++k) acc = dot_wide(acc, codes[k], load_word(x + 4 * k));
  return acc;
#endif
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif  // CADRE_PANEL_SIMD

#endif  // toggle
