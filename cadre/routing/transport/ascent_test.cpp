#include "cadre/routing/transport/ascent.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cadre::transport {
namespace {

using Vector = std::vector<double>;

/// -(sum of scale_i (x_i - i)^2) / 2 with scales from 1 to 1000.
double bowl(const Vector& x, Vector& gradient) {
  double value = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double scale = std::pow(10.0, 3.0 * static_cast<double>(i) / 9);
    const double offset = x[i] - static_cast<double>(i);
    value -= scale * offset * offset / 2;
    gradient[i] = -scale * offset;
  }
  return value;
}

TEST(Lbfgs, ClimbsAnIllConditionedBowl) {
  const Maximum maximum = maximize(bowl, Vector(10, 0.0), Lbfgs{.tolerance = 1e-8});
  EXPECT_LT(maximum.gradient, 1e-8);
  EXPECT_LT(maximum.iterations, 100);
  for (size_t i = 0; i < 10; ++i) EXPECT_NEAR(maximum.x[i], static_cast<double>(i), 1e-7);
}

TEST(Lbfgs, EndsAtAKink) {
  const Concave tent = [](const Vector& x, Vector& gradient) {
    gradient = {x[0] > 2 ? -1.0 : 1.0, x[1] > -1 ? -3.0 : 3.0};
    return -std::abs(x[0] - 2) - 3 * std::abs(x[1] + 1);
  };
  const Maximum maximum = maximize(tent, {0.13, 0.37}, Lbfgs{});
  EXPECT_NEAR(maximum.value, 0, 1e-6);
}

TEST(Lbfgs, StopsAtOnceAtTheTop) {
  const Maximum maximum = maximize(bowl, {0, 1, 2}, Lbfgs{});
  EXPECT_EQ(maximum.iterations, 0);
  EXPECT_EQ(maximum.x, (Vector{0, 1, 2}));
}

TEST(Adam, NearsTheTopAndKeepsToItsSteps) {
  const Maximum maximum =
      maximize(bowl, Vector(3, 0.0), Adam{.steps = 2000, .learning_rate = 0.02});
  for (size_t i = 0; i < 3; ++i) EXPECT_NEAR(maximum.x[i], static_cast<double>(i), 1e-3);
  const Maximum few = maximize(bowl, Vector(3, 0.0), Adam{.steps = 20, .learning_rate = 0.01});
  EXPECT_LE(few.x[2], 0.2);
  EXPECT_EQ(few.iterations, 20);
}

}  // namespace
}  // namespace cadre::transport
