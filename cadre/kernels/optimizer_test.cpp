#include "cadre/kernels/optimizer.h"

#include <limits>

#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

TEST(AdamW, FollowsThePaperOverSteps) {
  for (const int64_t n : {0, 1, 19, 50000}) {
    Floats parameter = random_floats(n, 1), m(n), v(n);
    std::vector<double> want(parameter.begin(), parameter.end()), want_m(n), want_v(n);
    for (int64_t step = 1; step <= 5; ++step) {
      const Floats grad = random_floats(n, 10 + step);
      adamw({.lr = 0.01f, .grad_scale = 0.5f, .step = step}, n, parameter.data(), grad.data(),
            m.data(), v.data());
      for (int64_t i = 0; i < n; ++i) {
        const double g = 0.5 * grad[i];
        want_m[i] = 0.9 * want_m[i] + 0.1 * g;
        want_v[i] = 0.95 * want_v[i] + 0.05 * g * g;
        const double m_hat = want_m[i] / (1 - std::pow(0.9, step));
        const double v_hat = want_v[i] / (1 - std::pow(0.95, step));
        want[i] = want[i] * (1 - 0.01 * 0.1) - 0.01 * m_hat / (std::sqrt(v_hat) + 1e-8);
      }
    }
    expect_close(parameter, want, 1e-5, "parameter");
    expect_close(m, want_m, 1e-5, "exp_avg");
    expect_close(v, want_v, 1e-5, "exp_avg_sq");
  }
}

TEST(SumOfSquares, IsExactInDoubleAndTheSameForAnyTeam) {
  for (const int64_t n : {0, 1, 31, 65536, 200001}) {
    const Floats x = random_floats(n, n);
    EXPECT_NEAR(sum_of_squares(x.data(), n), dot(x, x), 1e-9 * static_cast<double>(n));
    expect_same_bits([&] { return Floats{static_cast<float>(sum_of_squares(x.data(), n))}; });
  }
  Floats x(100, std::numeric_limits<float>::max());
  EXPECT_TRUE(std::isfinite(sum_of_squares(x.data(), 100)));
  x[50] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(std::isinf(sum_of_squares(x.data(), 100)));
  x[99] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(sum_of_squares(x.data(), 100)));
}

}  // namespace
}  // namespace cadre::kernels
