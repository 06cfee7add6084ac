#include "cadre/kernels/expert_ffn.h"

#include <limits>

#include "cadre/kernels/test_util.h"

namespace cadre::kernels {
namespace {

using Offsets = std::vector<int64_t>;
using Doubles = std::vector<double>;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Problem {
  int64_t experts, hidden, inner, rows;
  Offsets offsets;
  Floats x, w_gate, w_up, w_down, dy;

  Problem(Offsets all_offsets, int64_t d, int64_t h)
      : experts(static_cast<int64_t>(all_offsets.size()) - 1),
        hidden(d),
        inner(h),
        rows(all_offsets.back()),
        offsets(std::move(all_offsets)),
        x(random_floats(rows * d, 1)),
        w_gate(random_floats(experts * d * h, 2, 0.3f)),
        w_up(random_floats(experts * d * h, 3, 0.3f)),
        w_down(random_floats(experts * d * h, 4, 0.3f)),
        dy(random_floats(rows * d, 5)) {}

  ExpertFfnShape shape() const { return {experts, hidden, inner}; }
};

struct Result {
  Floats gate_up, y, dx, dw_gate, dw_up, dw_down;
};

Result run(const Problem& p) {
  const int64_t weights = p.experts * p.hidden * p.inner;
  Result r{Floats(p.rows * 2 * p.inner, kNan),
           Floats(p.rows * p.hidden, kNan),
           Floats(p.rows * p.hidden, kNan),
           Floats(weights, kNan),
           Floats(weights, kNan),
           Floats(weights, kNan)};
  expert_ffn(p.shape(), p.offsets.data(), p.x.data(), p.w_gate.data(), p.w_up.data(),
             p.w_down.data(), r.gate_up.data(), r.y.data());
  expert_ffn_backward(p.shape(), p.offsets.data(), p.x.data(), p.w_gate.data(), p.w_up.data(),
                      p.w_down.data(), r.gate_up.data(), p.dy.data(), r.dx.data(), r.dw_gate.data(),
                      r.dw_up.data(), r.dw_down.data());
  return r;
}

/// One row through one expert and back, in obvious loops.
void reference_row(const Problem& p, int64_t e, int64_t row, Doubles& y, Doubles& dx,
                   Doubles& dw_gate, Doubles& dw_up, Doubles& dw_down) {
  const int64_t base = e * p.hidden * p.inner;
  for (int64_t h = 0; h < p.inner; ++h) {
    double gate = 0, up = 0, dact = 0;
    for (int64_t d = 0; d < p.hidden; ++d) {
      gate += static_cast<double>(p.x[row * p.hidden + d]) * p.w_gate[base + h * p.hidden + d];
      up += static_cast<double>(p.x[row * p.hidden + d]) * p.w_up[base + h * p.hidden + d];
      dact += static_cast<double>(p.dy[row * p.hidden + d]) * p.w_down[base + d * p.inner + h];
    }
    const double s = sigmoid(gate);
    const double act = gate * s * up;
    const double dgate = dact * up * s * (1 + gate * (1 - s));
    const double dup = dact * gate * s;
    for (int64_t d = 0; d < p.hidden; ++d) {
      const int64_t in = base + h * p.hidden + d;
      const int64_t out = base + d * p.inner + h;
      y[row * p.hidden + d] += act * p.w_down[out];
      dx[row * p.hidden + d] += dgate * p.w_gate[in] + dup * p.w_up[in];
      dw_gate[in] += dgate * p.x[row * p.hidden + d];
      dw_up[in] += dup * p.x[row * p.hidden + d];
      dw_down[out] += act * p.dy[row * p.hidden + d];
    }
  }
}

void expect_reference(const Problem& p) {
  const int64_t weights = p.experts * p.hidden * p.inner;
  Doubles y(p.rows * p.hidden), dx(y), dw_gate(weights), dw_up(weights), dw_down(weights);
  for (int64_t e = 0; e < p.experts; ++e) {
    for (int64_t row = p.offsets[e]; row < p.offsets[e + 1]; ++row) {
      reference_row(p, e, row, y, dx, dw_gate, dw_up, dw_down);
    }
  }
  const Result r = run(p);
  expect_close(r.y, y, 2e-4, "y");
  expect_close(r.dx, dx, 2e-4, "dx");
  expect_close(r.dw_gate, dw_gate, 5e-4, "dw_gate");
  expect_close(r.dw_up, dw_up, 5e-4, "dw_up");
  expect_close(r.dw_down, dw_down, 5e-4, "dw_down");
}

TEST(ExpertFfn, ForwardAndBackwardEqualTheReference) {
  // No rows, one row, idle experts, many small ones; the last two have experts too busy for one
  // task.
  const std::vector<Offsets> routings{{0, 0},
                                      {0, 0, 0},
                                      {0, 1},
                                      {0, 40},
                                      random_offsets(9, 12, 1),
                                      random_offsets(30, 50, 2),
                                      {0, 3000},
                                      {0, 5, 1700, 1700, 2600}};
  for (const Offsets& offsets : routings) {
    for (const auto& [hidden, inner] : {std::pair<int64_t, int64_t>{1, 1}, {7, 5}, {33, 70}}) {
      expect_reference(Problem(offsets, hidden, inner));
    }
  }
}

TEST(ExpertFfn, WithoutGateUpTheOutputIsTheSame) {
  const Problem p(random_offsets(6, 40, 4), 24, 10);
  Floats y(p.rows * p.hidden, kNan);
  expert_ffn(p.shape(), p.offsets.data(), p.x.data(), p.w_gate.data(), p.w_up.data(),
             p.w_down.data(), nullptr, y.data());
  expect_close(y, run(p).y, 0, "y");
}

TEST(ExpertFfn, GradientMeetsCentralDifferences) {
  Problem p({0, 2, 2, 5}, 4, 3);
  const auto loss = [&] { return dot(run(p).y, p.dy); };
  const Result r = run(p);
  expect_close(r.dx, numeric_gradient(p.x, loss), 2e-3, "dx");
  expect_close(r.dw_gate, numeric_gradient(p.w_gate, loss), 2e-3, "dw_gate");
  expect_close(r.dw_up, numeric_gradient(p.w_up, loss), 2e-3, "dw_up");
  expect_close(r.dw_down, numeric_gradient(p.w_down, loss), 2e-3, "dw_down");
}

TEST(ExpertFfn, SecondRunGivesTheSameBits) {
  const Problem p(random_offsets(12, 300, 6), 48, 32);
  const Result a = run(p);
  const Result b = run(p);
  EXPECT_EQ(a.y, b.y);
  EXPECT_EQ(a.dx, b.dx);
  EXPECT_EQ(a.dw_gate, b.dw_gate);
  EXPECT_EQ(a.dw_down, b.dw_down);
}

}  // namespace
}  // namespace cadre::kernels
