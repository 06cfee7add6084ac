#include "cadre/kernels/rotary.h"

#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

TEST(Rotary, TurnsPairsByThePositionAndBack) {
  for (const int64_t dim : {2, 10, 64, 96}) {
    const int64_t tokens = 11, heads = 3, half = dim / 2, stride = heads * dim + 5;
    std::vector<int64_t> positions;
    for (int64_t t = 0; t < tokens; ++t) positions.push_back(t * 7 % 13);
    Floats cos(13 * half), sin(13 * half);
    for (int64_t i = 0; i < 13 * half; ++i) {
      const double angle = static_cast<double>(i / half) * std::pow(100.0, -2.0 * (i % half) / dim);
      cos[i] = static_cast<float>(std::cos(angle));
      sin[i] = static_cast<float>(std::sin(angle));
    }
    const Floats before = random_floats(tokens * stride, dim);
    std::vector<double> want(before.begin(), before.end());
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t i = 0; i < heads * half; ++i) {
        const int64_t at = t * stride + i / half * dim + i % half;
        const double c = cos[positions[t] * half + i % half];
        const double s = sin[positions[t] * half + i % half];
        want[at] = before[at] * c - before[at + half] * s;
        want[at + half] = before[at + half] * c + before[at] * s;
      }
    }
    Floats x = before;
    rotary(x.data(), positions.data(), cos.data(), sin.data(), tokens, heads, dim, stride, 1);
    expect_close(x, want, 1e-6, "rotated");
    rotary(x.data(), positions.data(), cos.data(), sin.data(), tokens, heads, dim, stride, -1);
    expect_close(x, before, 1e-5, "rotated back");
  }
}

}  // namespace
}  // namespace cadre::kernels
