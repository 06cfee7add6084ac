#pragma once

/// What the kernels' tests share: random data and comparison with a reference in double.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

#include "cadre/base/parallel.h"
#include "cadre/base/random.h"

namespace cadre::kernels {

using Floats = std::vector<float>;

inline Floats random_floats(int64_t n, uint64_t seed, float scale = 1) {
  Random random(seed);
  Floats x(n);
  for (float& value : x) value = scale * random.normal();
  return x;
}

/// |got - want| <= tolerance * max(1, |want|), element by element; NaN must meet NaN.
template <class Want>
void expect_close(const Floats& got, const std::vector<Want>& want, double tolerance,
                  const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    if (std::isnan(want[i]) && std::isnan(got[i])) continue;
    if (got[i] == want[i]) continue;
    const double bound = tolerance * std::max(1.0, std::abs(static_cast<double>(want[i])));
    ASSERT_NEAR(got[i], want[i], bound) << what << " at " << i;
  }
}

/// Same bits with one and with two threads.
inline void expect_same_bits(const std::function<Floats()>& run) {
  const int before = num_threads();
  set_num_threads(1);
  const Floats one = run();
  set_num_threads(2);
  const Floats two = run();
  set_num_threads(before);
  ASSERT_EQ(one.size(), two.size());
  for (size_t i = 0; i < one.size(); ++i) ASSERT_EQ(one[i], two[i]) << "at " << i;
}

/// Central differences of `loss` with respect to each x[i], in place.
inline std::vector<double> numeric_gradient(Floats& x, const std::function<double()>& loss,
                                            float step = 1e-2f) {
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const float kept = x[i];
    x[i] = kept + step;
    const double above = loss();
    x[i] = kept - step;
    const double below = loss();
    x[i] = kept;
    gradient[i] = (above - below) / (2.0 * step);
  }
  return gradient;
}

inline double dot(const Floats& a, const Floats& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

/// Random row counts for experts, as offsets [experts + 1]; every third expert gets none.
inline std::vector<int64_t> random_offsets(int64_t experts, int64_t max_rows, uint64_t seed) {
  Random random(seed);
  std::vector<int64_t> offsets{0};
  for (int64_t e = 0; e < experts; ++e) {
    const int64_t rows = e % 3 == 1 ? 0 : static_cast<int64_t>(random.below(max_rows + 1));
    offsets.push_back(offsets.back() + rows);
  }
  return offsets;
}

}  // namespace cadre::kernels
