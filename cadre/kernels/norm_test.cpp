#include "cadre/kernels/norm.h"

#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

using Doubles = std::vector<double>;

struct RmsResult {
  Floats y, inverse, dx, dweight;
};

RmsResult run_rms(const Floats& x, const Floats& weight, const Floats& dy) {
  const int64_t n = static_cast<int64_t>(weight.size());
  const int64_t rows = static_cast<int64_t>(x.size()) / n;
  RmsResult r{Floats(x.size()), Floats(rows), Floats(x.size()), Floats(n, 99)};
  rms_norm(x.data(), weight.data(), 1e-5f, rows, n, r.y.data(), r.inverse.data());
  rms_norm_backward(x.data(), weight.data(), r.inverse.data(), dy.data(), rows, n, r.dx.data(),
                    r.dweight.data());
  return r;
}

struct LayerResult {
  Floats y, mean, inverse, dx, dweight, dbias;
};

LayerResult run_layer(const Floats& x, const Floats& weight, const Floats& bias, const Floats& dy) {
  const int64_t n = static_cast<int64_t>(weight.size());
  const int64_t rows = static_cast<int64_t>(x.size()) / n;
  LayerResult r{Floats(x.size()), Floats(rows),  Floats(rows),
                Floats(x.size()), Floats(n, 99), Floats(n, 99)};
  layer_norm(x.data(), weight.data(), bias.data(), 1e-5f, rows, n, r.y.data(), r.mean.data(),
             r.inverse.data());
  layer_norm_backward(x.data(), weight.data(), r.mean.data(), r.inverse.data(), dy.data(), rows, n,
                      r.dx.data(), r.dweight.data(), r.dbias.data());
  return r;
}

TEST(RmsNorm, EqualsTheReferenceOverSizes) {
  for (const int64_t n : {1, 3, 16, 37, 512}) {
    for (const int64_t rows : {0, 1, 5, 200}) {
      const Floats x = random_floats(rows * n, n + rows);
      const Floats weight = random_floats(n, 2);
      Doubles want(x.size());
      for (int64_t row = 0; row < rows; ++row) {
        double squares = 0;
        for (int64_t i = 0; i < n; ++i)
          squares += static_cast<double>(x[row * n + i]) * x[row * n + i];
        for (int64_t i = 0; i < n; ++i) {
          want[row * n + i] = x[row * n + i] / std::sqrt(squares / n + 1e-5) * weight[i];
        }
      }
      expect_close(run_rms(x, weight, x).y, want, 1e-5, "rms_norm");
    }
  }
}

TEST(RmsNorm, GradientMeetsCentralDifferences) {
  for (const int64_t rows : {1, 70}) {
    Floats x = random_floats(rows * 19, 1);
    Floats weight = random_floats(19, 2);
    const Floats dy = random_floats(rows * 19, 3);
    const auto loss = [&] { return dot(run_rms(x, weight, dy).y, dy); };
    const RmsResult r = run_rms(x, weight, dy);
    expect_close(r.dx, numeric_gradient(x, loss), 2e-3, "dx");
    expect_close(r.dweight, numeric_gradient(weight, loss), 2e-3, "dweight");
  }
}

TEST(RmsNorm, WithoutRowsTheWeightGradientIsZero) {
  EXPECT_EQ(run_rms({}, Floats(5, 1), {}).dweight, Floats(5, 0));
}

TEST(LayerNorm, EqualsTheReferenceOverSizes) {
  for (const int64_t n : {1, 3, 16, 37, 512}) {
    for (const int64_t rows : {0, 1, 5, 200}) {
      const Floats x = random_floats(rows * n, n + rows);
      const Floats weight = random_floats(n, 2);
      const Floats bias = random_floats(n, 3);
      Doubles want(x.size());
      for (int64_t row = 0; row < rows; ++row) {
        double mean = 0, variance = 0;
        for (int64_t i = 0; i < n; ++i) mean += x[row * n + i] / static_cast<double>(n);
        for (int64_t i = 0; i < n; ++i) variance += std::pow(x[row * n + i] - mean, 2) / n;
        for (int64_t i = 0; i < n; ++i) {
          const double unit = (x[row * n + i] - mean) / std::sqrt(variance + 1e-5);
          want[row * n + i] = unit * weight[i] + bias[i];
        }
      }
      expect_close(run_layer(x, weight, bias, x).y, want, 2e-5, "layer_norm");
    }
  }
}

TEST(LayerNorm, GradientMeetsCentralDifferences) {
  for (const int64_t rows : {1, 70}) {
    Floats x = random_floats(rows * 19, 1);
    Floats weight = random_floats(19, 2);
    Floats bias = random_floats(19, 3);
    const Floats dy = random_floats(rows * 19, 4);
    const auto loss = [&] { return dot(run_layer(x, weight, bias, dy).y, dy); };
    const LayerResult r = run_layer(x, weight, bias, dy);
    expect_close(r.dx, numeric_gradient(x, loss), 2e-3, "dx");
    expect_close(r.dweight, numeric_gradient(weight, loss), 2e-3, "dweight");
    expect_close(r.dbias, numeric_gradient(bias, loss), 2e-3, "dbias");
  }
}

TEST(Norms, SameBitsForAnyTeam) {
  const Floats x = random_floats(3000 * 65, 1);
  const Floats dy = random_floats(3000 * 65, 2);
  const Floats weight = random_floats(65, 3);
  expect_same_bits([&] { return run_rms(x, weight, dy).dweight; });
  expect_same_bits([&] { return run_rms(x, weight, dy).dx; });
  expect_same_bits([&] { return run_layer(x, weight, weight, dy).dweight; });
  expect_same_bits([&] { return run_layer(x, weight, weight, dy).dbias; });
}

}  // namespace
}  // namespace cadre::kernels
