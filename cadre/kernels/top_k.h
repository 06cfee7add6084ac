#pragma once

/// Row-wise selection of the k largest scores, the same on every machine: ties go to the lower
/// index.

#include <cstdint>

namespace cadre::kernels {

/// scores [rows, n]; writes indices [rows, k] and values [rows, k] (may be null), in falling order
/// of score, equal scores by rising index. NaN ranks below everything. 0 <= k <= n.
void top_k(const float* scores, int64_t rows, int64_t n, int64_t k, int32_t* indices,
           float* values);

}  // namespace cadre::kernels
