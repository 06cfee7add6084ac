#include "cadre/reshape/span_kernel.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/memory.h"

namespace cadre::reshape {
namespace {

class SpanKernel : public TileKernel {
 public:
  explicit SpanKernel(SpanOptions options) : options_(std::move(options)) {}

  int64_t grain() const override { return by_row() ? options_.columns : 1; }
  int passes() const override { return by_row() ? 0 : 1; }
  void begin_pass(int, int64_t tiles) override { parts_.assign(static_cast<size_t>(tiles), {}); }
  void look(int, const Tile& tile) override {
    parts_[static_cast<size_t>(tile.index)] = gram_of(tile.in, 0, size_of(tile));
  }
  void end_pass(int) override {
    Gram sum = parts_.empty() ? Gram{} : parts_.front();
    for (size_t i = 1; i < parts_.size(); ++i) {
      sum.elements += parts_[i].elements;
      for (size_t j = 0; j < sum.products.size(); ++j) sum.products[j] += parts_[i].products[j];
    }
    release(parts_);
    coefficients_ = options_.coefficients(sum);
  }

  void compute(const Tile& tile) const override {
    const int64_t size = size_of(tile);
    if (!by_row()) return mix(tile, 0, size, coefficients_);
    for (int64_t row = 0; row < size; row += options_.columns)
      mix(tile, row, options_.columns,
          options_.coefficients(gram_of(tile.in, row, options_.columns)));
  }

 private:
  bool by_row() const { return options_.scope == SpanScope::kRow; }
  bool has_base() const { return options_.base == SpanBase::kLast; }
  static int64_t size_of(const Tile& tile) { return static_cast<int64_t>(tile.in[0].size()); }

  Gram gram_of(std::span<const std::span<const float>> in, int64_t first, int64_t size) const {
    const auto count = static_cast<int64_t>(in.size()) - (has_base() ? 1 : 0);
    Gram gram = {.count = count, .elements = size};
    gram.products.resize(static_cast<size_t>(count * count));
    const float* base = has_base() ? in.back().data() + first : nullptr;
    for (int64_t i = 0; i < count; ++i)
      for (int64_t j = i; j < count; ++j) {
        const double dot = dot_of(in[i].data() + first, in[j].data() + first, base, size);
        gram.products[static_cast<size_t>(i * count + j)] = dot;
        gram.products[static_cast<size_t>(j * count + i)] = dot;
      }
    return gram;
  }

  /// Four sums, so that additions need not wait for each other; in a fixed order.
  static double dot_of(const float* a, const float* b, const float* base, int64_t size) {
    double sums[4] = {};
    const auto term = [&](int64_t i) {
      const double origin = base == nullptr ? 0.0 : base[i];
      return (a[i] - origin) * (b[i] - origin);
    };
    int64_t i = 0;
    for (; i + 4 <= size; i += 4)
      for (int64_t k = 0; k < 4; ++k) sums[k] += term(i + k);
    for (; i < size; ++i) sums[0] += term(i);
    return (sums[0] + sums[1]) + (sums[2] + sums[3]);
  }

  void mix(const Tile& tile, int64_t first, int64_t size, const std::vector<double>& c) const {
    for (int64_t i = first; i < first + size; ++i) {
      const double origin = has_base() ? tile.in.back()[i] : 0.0;
      double sum = origin;
      for (size_t k = 0; k < c.size(); ++k) sum += c[k] * (tile.in[k][i] - origin);
      tile.out[i] = static_cast<float>(sum);
    }
  }

  const SpanOptions options_;
  std::vector<Gram> parts_;
  std::vector<double> coefficients_;
};

double length(const Gram& gram, int64_t i) { return std::sqrt(gram.dot(i, i)); }

/// <sum a_i x_i, sum b_j x_j>
double dot(const Gram& gram, const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (int64_t i = 0; i < gram.count; ++i)
    for (int64_t j = 0; j < gram.count; ++j)
      sum += a[static_cast<size_t>(i)] * b[static_cast<size_t>(j)] * gram.dot(i, j);
  return sum;
}

double length(const Gram& gram, const std::vector<double>& a) {
  return std::sqrt(std::max(0.0, dot(gram, a, a)));
}

/// Coefficients of input i, made one long.
std::vector<double> unit(const Gram& gram, int64_t i) {
  std::vector<double> result(static_cast<size_t>(gram.count));
  const double norm = length(gram, i);
  result[static_cast<size_t>(i)] = norm > 0 ? 1 / norm : 0;
  return result;
}

void add(std::vector<double>& to, double scale, const std::vector<double>& from) {
  for (size_t i = 0; i < to.size(); ++i) to[i] += scale * from[i];
}

void scale(std::vector<double>& values, double by) {
  for (double& value : values) value *= by;
}

std::vector<double> arc(double t, double angle) {
  return {std::sin((1 - t) * angle) / std::sin(angle), std::sin(t * angle) / std::sin(angle)};
}

std::vector<double> normalized(std::vector<double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (std::abs(sum) < 1e-12) throw UsageError("merge: the weights sum to zero");
  scale(weights, 1 / sum);
  return weights;
}

}  // namespace

std::shared_ptr<TileKernel> span_kernel(SpanOptions options) {
  return std::make_shared<SpanKernel>(std::move(options));
}

Coefficients slerp_coefficients(double t) {
  return [t](const Gram& gram) -> std::vector<double> {
    constexpr double kParallel = 0.9995, kTiny = 1e-8;
    const double a = length(gram, 0), b = length(gram, 1);
    const double cosine = gram.dot(0, 1) / ((a > kTiny ? a : 1) * (b > kTiny ? b : 1));
    if (std::abs(cosine) > kParallel) return {1 - t, t};
    return arc(t, std::acos(cosine));
  };
}

Coefficients nuslerp_coefficients(double t) {
  return [t](const Gram& gram) -> std::vector<double> {
    constexpr double kTiny = 1e-7, kParallel = 1e-8;
    const double a = std::max(length(gram, 0), kTiny), b = std::max(length(gram, 1), kTiny);
    const double angle = std::acos(std::clamp(gram.dot(0, 1) / (a * b), -1.0, 1.0));
    if (std::abs(std::sin(angle)) < kParallel) return {1 - t, t};
    return arc(t, angle);
  };
}

Coefficients multislerp_coefficients(std::vector<double> weights) {
  return [weights = normalized(std::move(weights))](const Gram& gram) {
    constexpr double kTiny = 1e-8;
    const auto n = static_cast<size_t>(gram.count);
    std::vector<double> mean(n);
    double mean_length = 0;
    for (size_t i = 0; i < n; ++i) {
      add(mean, weights[i], unit(gram, static_cast<int64_t>(i)));
      mean_length += weights[i] * length(gram, static_cast<int64_t>(i));
    }
    const double norm = length(gram, mean);
    if (norm < kTiny) {
      if (n == 2 || mean_length < kTiny) return weights;
      throw UsageError("multislerp: the weighted directions cancel each other; change the weights");
    }
    scale(mean, 1 / norm);
    std::vector<double> tangent(n);
    for (size_t i = 0; i < n; ++i) {
      const std::vector<double> direction = unit(gram, static_cast<int64_t>(i));
      add(tangent, weights[i], direction);
      add(tangent, -weights[i] * dot(gram, direction, mean), mean);
    }
    const double angle = length(gram, tangent) + kTiny;
    std::vector<double> result(n);
    add(result, std::cos(angle), mean);
    add(result, std::sin(angle) / angle, tangent);
    scale(result, mean_length);
    return result;
  };
}

Coefficients karcher_coefficients(std::vector<double> weights, int64_t iterations,
                                  double tolerance) {
  return [weights = normalized(std::move(weights)), iterations, tolerance](const Gram& gram) {
    const auto n = static_cast<size_t>(gram.count);
    std::vector<double> mean(n), alphas(n);
    double mean_length = 0, alpha_sum = 0;
    for (size_t i = 0; i < n; ++i) {
      const double norm = length(gram, static_cast<int64_t>(i));
      mean_length += weights[i] * norm;
      alphas[i] = norm > tolerance ? weights[i] : 0;
      alpha_sum += alphas[i];
    }
    if (alpha_sum == 0) return std::vector<double>(n);
    size_t first = n;
    for (size_t i = 0; i < n; ++i) {
      alphas[i] /= alpha_sum;
      if (alphas[i] != 0 && first == n) first = i;
      add(mean, alphas[i], unit(gram, static_cast<int64_t>(i)));
    }
    const double norm = length(gram, mean);
    if (norm < tolerance)
      mean = unit(gram, static_cast<int64_t>(first));
    else
      scale(mean, 1 / norm);
    for (int64_t round = 0; round < iterations; ++round) {
      std::vector<double> tangent(n);
      for (size_t i = 0; i < n; ++i) {
        if (alphas[i] == 0) continue;
        const std::vector<double> direction = unit(gram, static_cast<int64_t>(i));
        const double cosine = std::clamp(dot(gram, mean, direction), -1.0, 1.0);
        const double angle = std::acos(cosine);
        if (angle < tolerance) continue;
        add(tangent, alphas[i] * angle / std::sin(angle), direction);
        add(tangent, -alphas[i] * angle / std::sin(angle) * cosine, mean);
      }
      const double step = length(gram, tangent);
      if (step < tolerance) break;
      scale(mean, std::cos(step));
      add(mean, std::sin(step) / step, tangent);
      const double long_now = length(gram, mean);
      if (long_now > tolerance) scale(mean, 1 / long_now);
    }
    scale(mean, mean_length);
    return mean;
  };
}

Coefficients model_stock_coefficients() {
  return [](const Gram& gram) {
    constexpr double kTiny = 1e-6;
    const auto n = static_cast<double>(gram.count);
    double cosines = 0, pairs = 0;
    for (int64_t i = 0; i < gram.count; ++i)
      for (int64_t j = i + 1; j < gram.count; ++j, ++pairs) {
        const double norms = std::max(length(gram, i) * length(gram, j), kTiny);
        cosines += std::clamp(gram.dot(i, j) / norms, -1.0, 1.0);
      }
    const double cosine = pairs == 0 ? 1 : cosines / pairs;
    const double divisor = 1 + (n - 1) * cosine;
    const double t = divisor == 0 ? 0 : n * cosine / divisor;
    return std::vector<double>(static_cast<size_t>(gram.count), t / n);
  };
}

}  // namespace cadre::reshape
