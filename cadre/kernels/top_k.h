#pragma once

/// Row-wise selection of the k largest scores, the same on every machine: ties go to the lower
/// index.

#include <cstdint>

namespace cadre::kernels {

/// scores [rows, n]; writes indices [rows, k] and values [rows, k] (may be null), in falling order
/// of score, equal scores by rising index. NaN ranks below everything. 0 <= k <= n.
void top_k(const float* scores, int64_t rows, int64_t n, int64_t k, int32_t* indices,
           float* values);

/// The scores of each row that it takes to pass the sum p: in falling order (as above) score j is
/// taken iff the sum of those before is at most p, summed in that order in fp32. Writes them to
/// indices [rows, n] from the row's start and their number to counts [rows]. At least one, all when
/// p is never passed. n >= 1.
void top_p(const float* scores, int64_t rows, int64_t n, float p, int32_t* indices,
           int64_t* counts);

}  // namespace cadre::kernels
