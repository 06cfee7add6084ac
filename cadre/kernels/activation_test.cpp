#include "cadre/kernels/activation.h"

#include <limits>

#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

using Doubles = std::vector<double>;

TEST(SiluMul, EqualsTheReferenceOverSizes) {
  for (const int64_t n : {1, 7, 16, 100}) {
    for (const int64_t rows : {0, 1, 9}) {
      const Floats gate_up = random_floats(rows * 2 * n, n, 20);
      Doubles want(rows * n);
      for (int64_t i = 0; i < rows * n; ++i) {
        const double gate = gate_up[i / n * 2 * n + i % n];
        want[i] = gate / (1 + std::exp(-gate)) * gate_up[i / n * 2 * n + n + i % n];
      }
      Floats y(want.size());
      silu_mul(gate_up.data(), rows, n, y.data());
      expect_close(y, want, 1e-5, "silu_mul");
    }
  }
}

TEST(SiluMul, GradientMeetsCentralDifferencesAlsoInPlace) {
  Floats gate_up = random_floats(3 * 2 * 19, 1);
  const Floats dy = random_floats(3 * 19, 2);
  Floats y(dy.size());
  const Doubles want = numeric_gradient(gate_up, [&] {
    silu_mul(gate_up.data(), 3, 19, y.data());
    return dot(y, dy);
  });
  Floats grad(gate_up.size());
  silu_mul_backward(gate_up.data(), dy.data(), 3, 19, grad.data());
  expect_close(grad, want, 1e-3, "dgate_up");
  silu_mul_backward(gate_up.data(), dy.data(), 3, 19, gate_up.data());
  EXPECT_EQ(gate_up, grad);
}

TEST(Gelu, EqualsTheReference) {
  for (const int64_t n : {0, 1, 15, 1000, 40000}) {
    const Floats x = random_floats(n, 3, 5);
    Doubles want;
    for (const double v : x) {
      const double inner = std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v);
      want.push_back(0.5 * v * (1 + std::tanh(inner)));
    }
    Floats y(n);
    gelu(x.data(), n, y.data());
    expect_close(y, want, 1e-5, "gelu");
  }
}

TEST(Gelu, GradientMeetsCentralDifferences) {
  Floats x = random_floats(67, 1, 2);
  const Floats dy = random_floats(67, 2);
  Floats y(67);
  const Doubles want = numeric_gradient(x, [&] {
    gelu(x.data(), 67, y.data());
    return dot(y, dy);
  });
  Floats dx(67);
  gelu_backward(x.data(), dy.data(), 67, dx.data());
  expect_close(dx, want, 1e-3, "dx");
}

TEST(Activations, SaturateAndLetNanThrough) {
  const float huge = std::numeric_limits<float>::max();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const int64_t n : {1, 32}) {  // single floats and whole vectors
    Floats x(2 * n, 1);
    Floats y(n);
    std::fill(x.begin(), x.begin() + n, -200.0f);
    silu_mul(x.data(), 1, n, y.data());
    EXPECT_NEAR(y[0], 0, 1e-30);
    std::fill(x.begin(), x.begin() + n, huge);
    silu_mul(x.data(), 1, n, y.data());
    EXPECT_EQ(y[0], huge);
    std::fill(x.begin(), x.begin() + n, nan);
    silu_mul(x.data(), 1, n, y.data());
    EXPECT_TRUE(std::isnan(y[0]));
    gelu(x.data(), n, y.data());
    EXPECT_TRUE(std::isnan(y[0]));
  }
}

}  // namespace
}  // namespace cadre::kernels
