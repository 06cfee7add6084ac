#include "cadre/kernels/normal.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "cadre/kernels/normal.cpp"
#include "hwy/foreach_target.h"
// After foreach_target.h, which includes this file once per target.
#include "cadre/kernels/simd-inl.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cadre::kernels::HWY_NAMESPACE {

void box_muller_range(const uint32_t* words, int64_t pairs, float* normals) {
  for_each_vector(pairs, [&](auto d, int64_t i) HWY_ATTR {
    const hn::RebindToUnsigned<decltype(d)> du;
    const hn::RebindToSigned<decltype(d)> di;
    const auto number = [&](auto word) HWY_ATTR { return hn::ConvertTo(d, hn::BitCast(di, word)); };
    // In (0, 1): 31 bits and a half, so that the logarithm has no pole.
    const auto share = hn::MulAdd(number(hn::ShiftRight<1>(hn::LoadU(du, words + i))),
                                  hn::Set(d, 0x1p-31f), hn::Set(d, 0x1p-32f));
    // In [-pi, pi), the word taken as signed.
    const auto angle =
        hn::Mul(number(hn::LoadU(du, words + pairs + i)), hn::Set(d, 3.14159265f * 0x1p-31f));
    const auto radius = hn::Sqrt(hn::Mul(hn::Set(d, -2.0f), hn::Log(d, share)));
    hn::StoreU(hn::Mul(radius, hn::Cos(d, angle)), d, normals + i);
    hn::StoreU(hn::Mul(radius, hn::Sin(d, angle)), d, normals + pairs + i);
  });
}

}  // namespace cadre::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace cadre::kernels {

HWY_EXPORT(box_muller_range);

void box_muller(const uint32_t* words, int64_t pairs, float* normals) {
  HWY_DYNAMIC_DISPATCH(box_muller_range)(words, pairs, normals);
}

}  // namespace cadre::kernels
#endif  // HWY_ONCE
