#pragma once

/// Selection and projection: what one column of a sparse plan is made of.

#include <cstdint>
#include <vector>

namespace cadre::transport {

/// The k largest of x [n] in rising order of index; equal values: the lower index. All when k >= n.
/// `scratch` keeps its memory between calls.
void keep_largest(const double* x, int64_t n, int64_t k, std::vector<int32_t>& ids,
                  std::vector<double>& scratch);

/// Projects v on the unit simplex, max(v - theta, 0) with sum 1, and returns theta (Michelot, "A
/// Finite Algorithm for Finding the Projection of a Point onto the Canonical Simplex", 1986: no
/// sorting, a handful of passes). v is not empty.
double project_on_simplex(std::vector<double>& v);

}  // namespace cadre::transport
