#pragma once

/// Two ways up a concave function that may have kinks.

#include <cstdint>
#include <functional>
#include <vector>

namespace cadre::transport {

/// The value at x; writes a gradient (at a kink: a supergradient). Both of the start's size.
using Concave = std::function<double(const std::vector<double>& x, std::vector<double>& gradient)>;

struct Maximum {
  std::vector<double> x;
  double value = 0;
  double gradient = 0;  ///< its largest entry
  int64_t iterations = 0;
};

struct Lbfgs {
  int64_t max_iterations = 500;
  double tolerance = 1e-9;  ///< stop when no entry of the gradient is larger
  int64_t memory = 10;      ///< pairs of (step, change of gradient) kept
};

/// Limited-memory BFGS with a bisecting search for the weak Wolfe conditions (Lewis and Overton,
/// "Nonsmooth Optimization via Quasi-Newton Methods", 2013), which stays sound at kinks; libraries'
/// searches interpolate and assume there are none. Stops early where the search finds no ascent.
Maximum maximize(const Concave& function, std::vector<double> start, const Lbfgs& options);

struct Adam {
  int64_t steps = 20;
  /// A step moves an entry by at most about this much. It falls to zero along half a cosine.
  double learning_rate = 1e-2;
};

/// Adam (Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015), betas 0.9 and 0.999.
/// Returns the last point, whose gradient is not checked.
Maximum maximize(const Concave& function, std::vector<double> start, const Adam& options);

}  // namespace cadre::transport
