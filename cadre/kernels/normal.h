#pragma once

#include <cstdint>

namespace cadre::kernels {

/// Standard normals of uniform random words (Box and Muller, "A Note on the Generation of Random
/// Normal Deviates", 1958), vectorised: words [2 * pairs], first the radii's, then the angles';
/// writes normals [2 * pairs]. Tails reach 6.6 standard deviations.
void box_muller(const uint32_t* words, int64_t pairs, float* normals);

}  // namespace cadre::kernels
