#include "cadre/routing/transport/ascent.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <numbers>

namespace cadre::transport {
namespace {

using Vector = std::vector<double>;
using View = Eigen::Map<const Eigen::VectorXd>;

/// The usual constants of the two Wolfe conditions.
constexpr double kIncrease = 1e-4, kSlope = 0.9;
constexpr int kMaxBisections = 30;
/// Two values this close, relative to their size, are equal: near the top an increase drowns in it.
constexpr double kRounding = 1e-14;

View view(const Vector& x) { return {x.data(), static_cast<Eigen::Index>(x.size())}; }
double dot(const Vector& x, const Vector& y) { return view(x).dot(view(y)); }
double largest(const Vector& x) { return x.empty() ? 0 : view(x).cwiseAbs().maxCoeff(); }

Vector plus(const Vector& x, double factor, const Vector& y) {
  Vector sum(x);
  for (size_t i = 0; i < x.size(); ++i) sum[i] += factor * y[i];
  return sum;
}

struct Point {
  Vector x, gradient;
  double value = 0;
};

Point evaluate(const Concave& function, Vector x) {
  Point point{.x = std::move(x)};
  point.gradient.resize(point.x.size());
  point.value = function(point.x, point.gradient);
  return point;
}

/// What L-BFGS remembers of the curvature.
class Curvature {
 public:
  explicit Curvature(int64_t memory) : memory_(memory) {}

  void remember(const Point& from, const Point& to) {
    Pair pair{.step = plus(to.x, -1, from.x), .change = plus(from.gradient, -1, to.gradient)};
    const double bend = dot(pair.step, pair.change);
    if (bend <= kRounding * dot(pair.change, pair.change)) return;
    pair.inverse_bend = 1 / bend;
    scale_ = bend / dot(pair.change, pair.change);
    pairs_.push_back(std::move(pair));
    if (static_cast<int64_t>(pairs_.size()) > memory_) pairs_.pop_front();
  }

  bool empty() const { return pairs_.empty(); }
  void forget() { pairs_.clear(); }

  /// The two-loop recursion.
  Vector direction(const Vector& gradient) const {
    Vector result = gradient;
    Vector factors;
    for (auto pair = pairs_.rbegin(); pair != pairs_.rend(); ++pair) {
      factors.push_back(pair->inverse_bend * dot(pair->step, result));
      result = plus(result, -factors.back(), pair->change);
    }
    for (double& value : result) value *= scale_;
    for (const Pair& pair : pairs_) {
      const double back = pair.inverse_bend * dot(pair.change, result);
      result = plus(result, factors.back() - back, pair.step);
      factors.pop_back();
    }
    return result;
  }

 private:
  struct Pair {
    Vector step, change;
    double inverse_bend = 0;
  };
  int64_t memory_;
  std::deque<Pair> pairs_;
  double scale_ = 1;
};

/// A point of more value along `direction` with clearly less slope; the best with more value when
/// bisection ends before; `from` itself when there is none.
Point search(const Concave& function, const Point& from, const Vector& direction, double step) {
  const double slope = dot(from.gradient, direction);
  const double slack = kRounding * (1 + std::abs(from.value));
  Point best = from;
  double low = 0, high = std::numeric_limits<double>::infinity();
  for (int bisection = 0; bisection < kMaxBisections; ++bisection) {
    Point point = evaluate(function, plus(from.x, step, direction));
    if (!(point.value >= from.value + kIncrease * step * slope - slack)) {
      high = step;
    } else if (dot(point.gradient, direction) > kSlope * slope) {
      low = step;
      best = std::move(point);
    } else {
      return point;
    }
    step = std::isinf(high) ? 2 * low : (low + high) / 2;
  }
  return best;
}

}  // namespace

Maximum maximize(const Concave& function, std::vector<double> start, const Lbfgs& options) {
  Point point = evaluate(function, std::move(start));
  Curvature curvature(options.memory);
  int64_t iteration = 0;
  while (iteration < options.max_iterations && largest(point.gradient) > options.tolerance) {
    const Vector direction = curvature.direction(point.gradient);
    if (!(dot(direction, point.gradient) > 0)) {
      if (curvature.empty()) break;
      curvature.forget();
      continue;
    }
    ++iteration;
    const double first = curvature.empty() ? 1 / largest(point.gradient) : 1.0;
    Point next = search(function, point, direction, first);
    if (next.x == point.x) {
      if (curvature.empty()) break;
      curvature.forget();
      continue;
    }
    curvature.remember(point, next);
    point = std::move(next);
  }
  return {.x = std::move(point.x),
          .value = point.value,
          .gradient = largest(point.gradient),
          .iterations = iteration};
}

Maximum maximize(const Concave& function, std::vector<double> start, const Adam& options) {
  constexpr double kFirst = 0.9, kSecond = 0.999, kTiny = 1e-8;
  Point point = evaluate(function, std::move(start));
  Vector mean(point.x.size(), 0.0), square(point.x.size(), 0.0);
  for (int64_t step = 0; step < options.steps; ++step) {
    const double progress = static_cast<double>(step) / static_cast<double>(options.steps);
    const double rate = options.learning_rate * 0.5 * (1 + std::cos(std::numbers::pi * progress));
    const double mean_share = 1 - std::pow(kFirst, step + 1);
    const double square_share = 1 - std::pow(kSecond, step + 1);
    for (size_t i = 0; i < mean.size(); ++i) {
      const double gradient = point.gradient[i];
      mean[i] = kFirst * mean[i] + (1 - kFirst) * gradient;
      square[i] = kSecond * square[i] + (1 - kSecond) * gradient * gradient;
      point.x[i] += rate * (mean[i] / mean_share) / (std::sqrt(square[i] / square_share) + kTiny);
    }
    point.value = function(point.x, point.gradient);
  }
  const double gradient = largest(point.gradient);
  return {.x = std::move(point.x),
          .value = point.value,
          .gradient = gradient,
          .iterations = options.steps};
}

}  // namespace cadre::transport
