#include "cadre/routing/transport/simplex.h"

#include <algorithm>
#include <functional>
#include <numeric>

namespace cadre::transport {

void keep_largest(const double* x, int64_t n, int64_t k, std::vector<int32_t>& ids,
                  std::vector<double>& scratch) {
  ids.clear();
  if (k >= n) {
    ids.resize(n);
    std::iota(ids.begin(), ids.end(), 0);
    return;
  }
  scratch.assign(x, x + n);
  std::nth_element(scratch.begin(), scratch.begin() + (k - 1), scratch.end(), std::greater<>());
  const double smallest = scratch[k - 1];
  int64_t ties = k - std::count_if(scratch.begin(), scratch.begin() + k,
                                   [smallest](double value) { return value > smallest; });
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] < smallest) continue;
    if (x[i] == smallest && ties-- <= 0) continue;
    ids.push_back(static_cast<int32_t>(i));
  }
}

double project_on_simplex(std::vector<double>& v) {
  double theta = (std::accumulate(v.begin(), v.end(), 0.0) - 1) / static_cast<double>(v.size());
  for (size_t kept = v.size();;) {
    double sum = 0;
    size_t above = 0;
    for (const double value : v) {
      const bool stays = value > theta;
      sum += stays ? value : 0.0;
      above += stays ? 1 : 0;
    }
    if (above == kept || above == 0) break;
    kept = above;
    theta = (sum - 1) / static_cast<double>(above);
  }
  for (double& value : v) value = std::max(value - theta, 0.0);
  return theta;
}

}  // namespace cadre::transport
