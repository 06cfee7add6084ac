#pragma once

/// Merges whose result lies in the span of the inputs: sum of c_i (x_i - base) + base, with
/// coefficients from the inputs' inner products alone. One pass gathers them (float64 sums by tile,
/// added in order), the second mixes.

#include <functional>
#include <memory>
#include <vector>

#include "cadre/reshape/plan.h"

namespace cadre::reshape {

/// Inner products of n vectors, row-major [n, n], and their length.
struct Gram {
  int64_t count = 0;
  int64_t elements = 0;
  std::vector<double> products;
  double dot(int64_t i, int64_t j) const { return products[static_cast<size_t>(i * count + j)]; }
};
using Coefficients = std::function<std::vector<double>(const Gram&)>;

enum class SpanScope { kTensor, kRow };
enum class SpanBase { kNone, kLast };  ///< kLast: the last input is the origin, not one of the n

struct SpanOptions {
  Coefficients coefficients;
  SpanScope scope = SpanScope::kTensor;
  SpanBase base = SpanBase::kNone;
  int64_t columns = 1;  ///< of a row
};
std::shared_ptr<TileKernel> span_kernel(SpanOptions options);

/// Between two vectors at t in [0, 1] along the arc; straight when they are within arccos(0.9995)
/// of parallel (Shoemake, "Animating rotation with quaternion curves", 1985; the threshold is
/// mergekit's).
Coefficients slerp_coefficients(double t);
/// The same, straight only when sin(angle) < 1e-8.
Coefficients nuslerp_coefficients(double t);
/// Weighted mean in the tangent space at the normalised weighted mean.
Coefficients multislerp_coefficients(std::vector<double> weights);
/// Weighted Karcher mean on the sphere, of mean length.
Coefficients karcher_coefficients(std::vector<double> weights, int64_t iterations,
                                  double tolerance);
/// Jang et al., "Model Stock: All we need is just a few fine-tuned models", 2024, eq. 7: t times
/// the mean of the offsets from the base, t = n cos / (1 + (n - 1) cos), cos the mean over pairs.
Coefficients model_stock_coefficients();

}  // namespace cadre::reshape
