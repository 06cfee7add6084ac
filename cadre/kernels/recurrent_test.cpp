#include "cadre/kernels/recurrent.h"

#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Step {
  Floats x, h, state;
  int64_t rows, n;

  Step(int64_t rows, int64_t n, uint64_t seed)
      : x(random_floats(rows * 3 * n, seed)),
        h(random_floats(rows * 3 * n, seed + 1)),
        state(random_floats(rows * n, seed + 2)),
        rows(rows),
        n(n) {}

  Floats next() const {
    Floats next(rows * n);
    gru(x.data(), h.data(), state.data(), rows, n, next.data());
    return next;
  }
};

TEST(Gru, EqualsTheReferenceOverSizes) {
  for (const int64_t n : {1, 7, 16, 100}) {
    for (const int64_t rows : {0, 1, 9}) {
      const Step step(rows, n, 10 * n);
      std::vector<double> want(rows * n);
      for (int64_t i = 0; i < rows * n; ++i) {
        const int64_t at = i / n * 3 * n + i % n;
        const double s = sigmoid(step.x[at] + step.h[at]);
        const double z = sigmoid(step.x[at + n] + step.h[at + n]);
        const double q = std::tanh(step.x[at + 2 * n] + s * step.h[at + 2 * n]);
        want[i] = (1 - z) * q + z * step.state[i];
      }
      expect_close(step.next(), want, 1e-6, "gru");
    }
  }
}

TEST(Gru, GradientsMeetCentralDifferences) {
  Step step(3, 19, 1);
  const Floats dnext = random_floats(3 * 19, 4);
  const auto loss = [&] { return dot(step.next(), dnext); };
  Floats dx(step.x.size()), dh(step.h.size()), dstate(step.state.size());
  gru_backward(step.x.data(), step.h.data(), step.state.data(), dnext.data(), 3, 19, dx.data(),
               dh.data(), dstate.data());
  expect_close(dx, numeric_gradient(step.x, loss), 1e-3, "dx");
  expect_close(dh, numeric_gradient(step.h, loss), 1e-3, "dh");
  expect_close(dstate, numeric_gradient(step.state, loss), 1e-3, "dstate");
}

TEST(Gru, SameBitsWithAnyNumberOfThreads) {
  const Step step(999, 33, 5);
  expect_same_bits([&] { return step.next(); });
}

}  // namespace
}  // namespace cadre::kernels
