#include "cadre/reshape/mix_kernels.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <numeric>

#include "cadre/base/memory.h"
#include "cadre/reshape/rank_threshold.h"
#include "cadre/reshape/value_loops.h"

namespace cadre::reshape {
namespace {

/// Added up in float64: the order of inputs shows in no bit of a 16-bit result, and in hardly any
/// of a float32 one.
class Linear : public TileKernel {
 public:
  /// Divides at the end: products of 16-bit values and simple weights add up exactly, so that the
  /// order of the models does not matter.
  Linear(std::vector<double> weights, Weights kind)
      : weights_(std::move(weights)),
        divisor_(kind == Weights::kAsGiven
                     ? 1.0
                     : std::accumulate(weights_.begin(), weights_.end(), 0.0)) {}

  void compute(const Tile& tile) const override {
    std::vector<const float*> in;
    for (const auto& values : tile.in) in.push_back(values.data());
    mix_floats(in.data(), weights_.data(), weights_.size(), divisor_, tile.out.size(),
               tile.out.data());
  }

 private:
  std::vector<double> weights_;
  double divisor_;
};

class Fisher : public TileKernel {
 public:
  explicit Fisher(std::vector<double> weights) : weights_(std::move(weights)) {}

  void compute(const Tile& tile) const override {
    const size_t n = weights_.size();
    for (size_t at = 0; at < tile.out.size(); ++at) {
      double sum = 0, divisor = 0, plain = 0, weights = 0;
      for (size_t i = 0; i < n; ++i) {
        const double importance = weights_[i] * tile.in[n + i][at];
        sum += importance * tile.in[i][at];
        divisor += importance;
        plain += weights_[i] * tile.in[i][at];
        weights += weights_[i];
      }
      tile.out[at] = static_cast<float>(divisor != 0 ? sum / divisor : plain / weights);
    }
  }

 private:
  const std::vector<double> weights_;
};

class NearSwap : public TileKernel {
 public:
  explicit NearSwap(double t) : t_(t) {}

  void compute(const Tile& tile) const override {
    for (size_t i = 0; i < tile.out.size(); ++i) {
      const double value = tile.in[0][i], base = tile.in[1][i];
      const double distance = std::abs(base - value);
      const double share = distance <= t_ ? 1 : t_ / distance;
      tile.out[i] = static_cast<float>(share * value + (1 - share) * base);
    }
  }

 private:
  const double t_;
};

class Ram : public TileKernel {
 public:
  Ram(int64_t models, const RamOptions& options)
      : models_(static_cast<size_t>(models)),
        options_(options),
        shared_(models_),
        unique_(models_),
        scales_(models_, 1.0) {}

  int passes() const override { return options_.r > 0 ? 1 : 0; }
  void look(int, const Tile& tile) override {
    for (size_t at = 0; at < tile.in[0].size(); ++at) {
      const int64_t count = movers(tile, at);
      for (size_t i = 0; count > 0 && i < models_; ++i)
        if (moves(tile, i, at)) ++(count > 1 ? shared_ : unique_)[i];
    }
  }
  void end_pass(int) override {
    for (size_t i = 0; i < models_; ++i) {
      const double unique = std::max(static_cast<double>(unique_[i].load()), options_.epsilon);
      const double ratio = static_cast<double>(shared_[i].load()) / unique;
      scales_[i] = 1 + options_.r * std::clamp(ratio, 0.0, options_.alpha);
    }
  }

  void compute(const Tile& tile) const override {
    for (size_t at = 0; at < tile.out.size(); ++at) {
      const int64_t count = movers(tile, at);
      double sum = 0;
      for (size_t i = 0; i < models_; ++i)
        if (moves(tile, i, at))
          sum += delta(tile, i, at) * (count > 1 ? 1.0 / static_cast<double>(count) : scales_[i]);
      tile.out[at] = static_cast<float>(tile.in[models_][at] + sum);
    }
  }

 private:
  double delta(const Tile& tile, size_t model, size_t at) const {
    return tile.in[model][at] - tile.in[models_][at];
  }
  bool moves(const Tile& tile, size_t model, size_t at) const {
    return std::abs(delta(tile, model, at)) > options_.epsilon;
  }
  int64_t movers(const Tile& tile, size_t at) const {
    int64_t count = 0;
    for (size_t i = 0; i < models_; ++i) count += moves(tile, i, at) ? 1 : 0;
    return count;
  }

  const size_t models_;
  const RamOptions options_;
  std::vector<std::atomic<int64_t>> shared_, unique_;
  std::vector<double> scales_;
};

class Sce : public TileKernel {
 public:
  Sce(int64_t models, double top)
      : models_(static_cast<size_t>(models)), top_(top), weights_(models_) {}

  int passes() const override { return (selects() ? selected_.passes() : 0) + 1; }
  void begin_pass(int pass, int64_t tiles) override {
    weighing_ = !selects() || pass >= selected_.passes();
    if (weighing_)
      parts_.assign(static_cast<size_t>(tiles), std::vector<double>(models_));
    else
      selected_.begin(pass, tiles);
    if (pass == 0) elements_ = 0;
  }
  void look(int pass, const Tile& tile) override {
    if (pass == 0) elements_ += static_cast<int64_t>(tile.in[0].size());
    if (!weighing_) return selected_.count(pass, tile.index, variances(tile));
    int64_t equals = 0;
    std::vector<double>& sums = parts_[static_cast<size_t>(tile.index)];
    const std::vector<float> spread = variances(tile);
    for (size_t at = 0; at < spread.size(); ++at) {
      if (!selected(spread[at], tile.index, equals)) continue;
      for (size_t i = 0; i < models_; ++i) sums[i] += delta(tile, i, at) * delta(tile, i, at);
    }
  }
  void end_pass(int pass) override {
    if (!weighing_) {
      const int64_t varying = elements_ - selected_.not_positive();
      return selected_.end(pass,
                           static_cast<int64_t>(std::abs(top_) * static_cast<double>(varying)));
    }
    double sum = 0;
    std::fill(weights_.begin(), weights_.end(), 0.0);
    for (const auto& part : parts_)
      for (size_t i = 0; i < models_; ++i) weights_[i] += part[i];
    for (const double weight : weights_) sum += weight;
    for (double& weight : weights_)
      weight = sum == 0 ? 1.0 / static_cast<double>(models_) : weight / sum;
    release(parts_);
  }

  void compute(const Tile& tile) const override {
    int64_t equals = 0;
    const std::vector<float> spread = variances(tile);
    for (size_t at = 0; at < tile.out.size(); ++at) {
      const double base = tile.in[models_][at];
      const bool taken = selected(spread[at], tile.index, equals);
      tile.out[at] = static_cast<float>(base + (taken ? mixed(tile, at) : 0.0));
    }
  }

 private:
  bool selects() const { return top_ < 1; }
  bool selected(float variance, int64_t tile, int64_t& equals) const {
    return !selects() || selected_.keeps(variance, tile, equals);
  }
  double delta(const Tile& tile, size_t model, size_t at) const {
    return tile.in[model][at] - tile.in[models_][at];
  }
  std::vector<float> variances(const Tile& tile) const {
    std::vector<float> result(tile.in[0].size());
    const auto n = static_cast<double>(models_);
    for (size_t at = 0; at < result.size(); ++at) {
      double mean = 0, sum = 0;
      for (size_t i = 0; i < models_; ++i) mean += delta(tile, i, at) / n;
      for (size_t i = 0; i < models_; ++i) sum += std::pow(delta(tile, i, at) - mean, 2);
      result[at] = static_cast<float>(sum / n);
    }
    return result;
  }
  double mixed(const Tile& tile, size_t at) const {
    double all = 0, sum = 0, weights = 0;
    for (size_t i = 0; i < models_; ++i) all += delta(tile, i, at);
    for (size_t i = 0; i < models_; ++i) {
      const double change = delta(tile, i, at);
      if (all >= 0 ? change <= 0 : change >= 0) continue;
      sum += weights_[i] * change;
      weights += weights_[i];
    }
    return weights == 0 ? sum : sum / weights;
  }

  const size_t models_;
  const double top_;
  RankThreshold selected_;
  bool weighing_ = false;
  std::atomic<int64_t> elements_ = 0;
  std::vector<std::vector<double>> parts_;
  std::vector<double> weights_;
};

class Fusion : public TileKernel {
 public:
  explicit Fusion(const std::vector<int64_t>& shape)
      : elements_(elements_of(shape)), columns_(shape.size() < 2 ? elements_ : columns_of(shape)) {}

  int64_t grain() const override { return columns_; }
  int passes() const override { return 2; }
  void begin_pass(int pass, int64_t tiles) override {
    for (RankThreshold& quartile : quartiles_) quartile.begin(pass, tiles);
  }
  void look(int pass, const Tile& tile) override {
    const std::vector<float> importance = importance_of(tile);
    for (RankThreshold& quartile : quartiles_) quartile.count(pass, tile.index, importance);
  }
  void end_pass(int pass) override {
    for (size_t i = 0; i < quartiles_.size(); ++i) {
      const double share = 0.25 * static_cast<double>(i + 1);
      const auto index = static_cast<int64_t>(share * static_cast<double>(elements_ - 1));
      quartiles_[i].end(pass, elements_ - index);
    }
    threshold_ = quartiles_[1].value() + 1.5F * (quartiles_[2].value() - quartiles_[0].value());
  }

  void compute(const Tile& tile) const override {
    const std::vector<float> importance = importance_of(tile);
    for (size_t i = 0; i < tile.out.size(); ++i)
      tile.out[i] = importance[i] >= threshold_ ? tile.in[0][i] : tile.in[1][i];
  }

 private:
  std::vector<float> importance_of(const Tile& tile) const {
    std::vector<float> result(tile.in[0].size());
    for (size_t row = 0; row < result.size(); row += static_cast<size_t>(columns_)) {
      const auto size = static_cast<size_t>(columns_);
      const double divergence =
          divergence_of(tile.in[0].subspan(row, size), tile.in[1].subspan(row, size));
      for (size_t i = row; i < row + size; ++i)
        result[i] = static_cast<float>(std::abs(tile.in[0][i] - tile.in[1][i]) * divergence);
    }
    return result;
  }

  /// KL divergence of two rows' softmaxes, each probability raised by 1e-8.
  static double divergence_of(std::span<const float> x, std::span<const float> y) {
    constexpr double kRaise = 1e-8;
    const double x_top = *std::max_element(x.begin(), x.end());
    const double y_top = *std::max_element(y.begin(), y.end());
    double x_sum = 0, y_sum = 0, divergence = 0;
    for (const float value : x) x_sum += std::exp(value - x_top);
    for (const float value : y) y_sum += std::exp(value - y_top);
    for (size_t i = 0; i < x.size(); ++i) {
      const double p = std::exp(x[i] - x_top) / x_sum + kRaise;
      const double q = std::exp(y[i] - y_top) / y_sum + kRaise;
      divergence += p * std::log(p / q);
    }
    return divergence;
  }

  const int64_t elements_, columns_;
  std::array<RankThreshold, 3> quartiles_;
  float threshold_ = 0;
};

template <typename Made, typename... Args>
std::shared_ptr<TileKernel> make(Args&&... args) {
  return std::make_shared<Made>(std::forward<Args>(args)...);
}

}  // namespace

std::shared_ptr<TileKernel> linear_kernel(std::vector<double> weights, Weights kind) {
  return make<Linear>(std::move(weights), kind);
}

std::shared_ptr<TileKernel> fisher_kernel(std::vector<double> weights) {
  return make<Fisher>(std::move(weights));
}
std::shared_ptr<TileKernel> nearswap_kernel(double t) { return make<NearSwap>(t); }
std::shared_ptr<TileKernel> ram_kernel(int64_t models, const RamOptions& options) {
  return make<Ram>(models, options);
}
std::shared_ptr<TileKernel> sce_kernel(int64_t models, double top) {
  return make<Sce>(models, top);
}
std::shared_ptr<TileKernel> fusion_kernel(const std::vector<int64_t>& shape) {
  return make<Fusion>(shape);
}

}  // namespace cadre::reshape
