#include "cadre/reshape/task_arithmetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/base/memory.h"
#include "cadre/base/random.h"
#include "cadre/base/text.h"
#include "cadre/reshape/rank_threshold.h"

namespace cadre::reshape {
namespace {

/// Sums over a task vector before and after values are dropped.
struct Norms {
  double before = 0, after = 0;
};

void combine(Norms& sum, const Norms& part, Rescale kind) {
  if (kind == Rescale::kLinf) {
    sum = {std::max(sum.before, part.before), std::max(sum.after, part.after)};
  } else {
    sum = {sum.before + part.before, sum.after + part.after};
  }
}

double term(double value, Rescale kind) { return kind == Rescale::kL2 ? value * value : value; }

/// Which values of one model's difference are kept, and how they are scaled.
class Thinning {
 public:
  Thinning(const TaskArithmeticOptions& options, size_t model, int64_t elements)
      : options_(options), vector_(options.models[model]), model_(model), elements_(elements) {}

  bool drops() const { return options_.sparsify != Sparsify::kNone && vector_.density < 1; }
  bool ranks() const {
    return drops() &&
           (options_.sparsify == Sparsify::kMagnitude || options_.sparsify == Sparsify::kOutliers);
  }
  bool measures() const {
    return drops() && options_.rescale != Rescale::kNone && options_.rescale != Rescale::kDensity;
  }
  int rank_passes() const { return ranks() ? std::max(kept_.passes(), outliers_.passes()) : 0; }

  void begin_rank(int pass, int64_t tiles) {
    kept_.begin(pass, tiles);
    outliers_.begin(pass, tiles);
  }
  void rank(int pass, int64_t tile, std::span<const float> delta) {
    thread_local std::vector<float> magnitudes;
    magnitudes.resize(delta.size());
    for (size_t i = 0; i < delta.size(); ++i) magnitudes[i] = std::abs(delta[i]);
    kept_.count(pass, tile, magnitudes);
    if (top() > 0) outliers_.count(pass, tile, magnitudes);
  }
  void end_rank(int pass) {
    kept_.end(pass, top() + target());
    outliers_.end(pass, top());
  }

  void begin_measure(int64_t tiles) { parts_.assign(static_cast<size_t>(tiles), {}); }
  void measure(const Tile& tile, std::span<const float> delta) {
    thread_local std::vector<float> thinned;
    thinned.assign(delta.begin(), delta.end());
    thin(tile, thinned, 1.0);
    Norms& part = parts_[static_cast<size_t>(tile.index)];
    for (size_t i = 0; i < delta.size(); ++i)
      combine(part,
              {term(std::abs(double{delta[i]}), options_.rescale),
               term(std::abs(double{thinned[i]}), options_.rescale)},
              options_.rescale);
  }
  void end_measure() {
    constexpr double kTiny = 1e-7;
    Norms sum;
    for (const Norms& part : parts_) combine(sum, part, options_.rescale);
    release(parts_);
    if (options_.rescale == Rescale::kL2) sum = {std::sqrt(sum.before), std::sqrt(sum.after)};
    scale_ = sum.before < kTiny || sum.after < kTiny ? 1 : sum.before / sum.after;
  }

  void apply(const Tile& tile, std::span<float> delta) const {
    if (!drops()) return;
    const bool by_density = options_.rescale == Rescale::kDensity && vector_.density > 0;
    thin(tile, delta, by_density ? 1 / vector_.density : scale_);
  }

 private:
  int64_t target() const {
    return static_cast<int64_t>(vector_.density * static_cast<double>(elements_));
  }
  /// The largest that are dropped; fewer when the density could not be had otherwise.
  int64_t top() const {
    if (options_.sparsify != Sparsify::kOutliers) return 0;
    const auto most = static_cast<int64_t>(vector_.gamma * static_cast<double>(elements_));
    return std::min(most, elements_ - target());
  }

  void thin(const Tile& tile, std::span<float> delta, double scale) const {
    if (ranks()) return thin_by_rank(tile, delta, scale);
    if (options_.sparsify == Sparsify::kDella) return thin_rows(tile, delta, scale);
    const auto density = static_cast<float>(vector_.density);
    draw(
        tile, 0, delta, [&](size_t) { return density; }, scale);
  }

  void thin_by_rank(const Tile& tile, std::span<float> delta, double scale) const {
    int64_t equals = 0, outlier_equals = 0;
    for (float& value : delta) {
      const float magnitude = std::abs(value);
      const bool kept = kept_.keeps(magnitude, tile.index, equals);
      const bool outlier = outliers_.keeps(magnitude, tile.index, outlier_equals);
      value = kept && !outlier ? static_cast<float>(value * scale) : 0.0F;
    }
  }

  void thin_rows(const Tile& tile, std::span<float> delta, double scale) const {
    const int64_t columns = options_.shape.size() < 2 ? elements_ : columns_of(options_.shape);
    std::vector<int64_t> order(static_cast<size_t>(columns));
    std::vector<float> chance(order.size());
    const double low = vector_.density - vector_.epsilon, span = 2 * vector_.epsilon;
    for (size_t row = 0; row < delta.size(); row += order.size()) {
      const std::span<float> values = delta.subspan(row, order.size());
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        return std::abs(values[static_cast<size_t>(a)]) < std::abs(values[static_cast<size_t>(b)]);
      });
      const double last = std::max<double>(1, static_cast<double>(columns - 1));
      for (size_t rank = 0; rank < order.size(); ++rank)
        chance[static_cast<size_t>(order[rank])] =
            static_cast<float>(low + static_cast<double>(rank) / last * span);
      draw(
          tile, row, values, [&](size_t i) { return chance[i]; }, scale);
    }
  }

  /// Keeps value i with chance(i): a pure function of seed, model and place in the tensor.
  template <typename Chance>
  void draw(const Tile& tile, size_t first, std::span<float> values, Chance chance,
            double scale) const {
    Random random(options_.seed, {model_});
    random.seek(static_cast<uint64_t>(tile.first) + first);
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = random.uniform() < chance(i) ? static_cast<float>(values[i] * scale) : 0.0F;
  }

  const TaskArithmeticOptions& options_;
  const TaskVector& vector_;
  const size_t model_;
  const int64_t elements_;
  RankThreshold kept_, outliers_;
  std::vector<Norms> parts_;
  double scale_ = 1;
};

class TaskArithmetic : public TileKernel {
 public:
  explicit TaskArithmetic(TaskArithmeticOptions options) : options_(std::move(options)) {
    for (size_t i = 0; i < options_.models.size(); ++i)
      thinning_.push_back(std::make_unique<Thinning>(options_, i, elements_of(options_.shape)));
  }

  int64_t grain() const override {
    if (options_.sparsify != Sparsify::kDella) return 1;
    return options_.shape.size() < 2 ? elements_of(options_.shape) : columns_of(options_.shape);
  }
  int passes() const override { return rank_passes() + (measures() ? 1 : 0); }
  int64_t scratch_bytes(int64_t elements) const override {
    const auto buffers = static_cast<int64_t>(options_.models.size()) + 3;
    return buffers * elements * 4 + RankThreshold::kTileBytes;
  }

  void begin_pass(int pass, int64_t tiles) override {
    measuring_ = pass >= rank_passes();
    for (const auto& model : thinning_) {
      if (measuring_)
        model->begin_measure(tiles);
      else if (model->ranks())
        model->begin_rank(pass, tiles);
    }
  }
  void look(int pass, const Tile& tile) override {
    thread_local std::vector<float> delta;
    for (size_t i = 0; i < thinning_.size(); ++i) {
      Thinning& model = *thinning_[i];
      if (measuring_ ? !model.measures() : !model.ranks()) continue;
      subtract(tile, i, delta);
      if (measuring_)
        model.measure(tile, delta);
      else
        model.rank(pass, tile.index, delta);
    }
  }
  void end_pass(int pass) override {
    for (const auto& model : thinning_) {
      if (measuring_ && model->measures())
        model->end_measure();
      else if (!measuring_ && model->ranks())
        model->end_rank(pass);
    }
  }

  void compute(const Tile& tile) const override {
    thread_local std::vector<std::vector<float>> deltas;
    deltas.resize(thinning_.size());
    for (size_t i = 0; i < thinning_.size(); ++i) {
      subtract(tile, i, deltas[i]);
      thinning_[i]->apply(tile, deltas[i]);
    }
    const std::span<const float> base = tile.in.back();
    for (size_t at = 0; at < base.size(); ++at)
      tile.out[at] = static_cast<float>(base[at] + options_.lambda * mixed(deltas, at));
  }

 private:
  int rank_passes() const {
    int passes = 0;
    for (const auto& model : thinning_) passes = std::max(passes, model->rank_passes());
    return passes;
  }
  bool measures() const {
    return std::any_of(thinning_.begin(), thinning_.end(),
                       [](const auto& model) { return model->measures(); });
  }

  static void subtract(const Tile& tile, size_t model, std::vector<float>& delta) {
    const std::span<const float> values = tile.in[model], base = tile.in.back();
    delta.resize(values.size());
    for (size_t i = 0; i < values.size(); ++i) delta[i] = values[i] - base[i];
  }

  /// The majority sign: +1 or -1, a draw counts as +1.
  double majority(const std::vector<std::vector<float>>& deltas, size_t at) const {
    double sum = 0;
    for (size_t i = 0; i < deltas.size(); ++i) {
      const double weighted = options_.models[i].weight * deltas[i][at];
      sum += options_.consensus == Consensus::kSum ? weighted : sign(weighted);
    }
    return sum >= 0 ? 1 : -1;
  }

  static double sign(double value) { return value > 0 ? 1 : value < 0 ? -1 : 0; }

  double mixed(const std::vector<std::vector<float>>& deltas, size_t at) const {
    const bool elects = options_.consensus != Consensus::kNone;
    const double elected = elects ? majority(deltas, at) : 0;
    double sum = 0, weights = 0;
    for (size_t i = 0; i < deltas.size(); ++i) {
      const double weighted = options_.models[i].weight * deltas[i][at];
      if (elects && sign(weighted) != elected) continue;
      sum += weighted;
      weights += options_.models[i].weight;
    }
    if (options_.weights == Weights::kAsGiven) return sum;
    const bool none = elects ? weights == 0 : std::abs(weights) < 1e-8;
    return none ? sum : sum / weights;
  }

  const TaskArithmeticOptions options_;
  std::vector<std::unique_ptr<Thinning>> thinning_;
  bool measuring_ = false;
};

void check(const TaskArithmeticOptions& options) {
  for (const TaskVector& vector : options.models) {
    if (!(vector.density >= 0 && vector.density <= 1))
      throw UsageError("density {} must be in [0, 1]", vector.density);
    if (!(vector.gamma >= 0 && vector.gamma < 1))
      throw UsageError("gamma {} must be in [0, 1)", vector.gamma);
    const bool della = options.sparsify == Sparsify::kDella && vector.density < 1;
    if (della && (vector.density + vector.epsilon >= 1 || vector.density - vector.epsilon <= 0))
      throw UsageError("density {} - epsilon {} and their sum must both be in (0, 1)",
                       vector.density, vector.epsilon);
  }
}

}  // namespace

Rescale rescale_named(std::string_view name) {
  constexpr std::array<std::pair<std::string_view, Rescale>, 5> kNames = {
      {{"none", Rescale::kNone},
       {"l1", Rescale::kL1},
       {"l2", Rescale::kL2},
       {"linf", Rescale::kLinf},
       {"density", Rescale::kDensity}}};
  std::vector<std::string> names;
  for (const auto& [known, kind] : kNames) {
    if (known == name) return kind;
    names.emplace_back(known);
  }
  throw UsageError("unknown rescale_norm '{}'{} (known: {})", name, did_you_mean(name, names),
                   fmt::join(names, ", "));
}

std::shared_ptr<TileKernel> task_arithmetic_kernel(TaskArithmeticOptions options) {
  check(options);
  return std::make_shared<TaskArithmetic>(std::move(options));
}

int64_t task_arithmetic_scratch(const TaskArithmeticOptions& options) {
  const int64_t vectors = static_cast<int64_t>(options.models.size());
  const bool ranks =
      options.sparsify == Sparsify::kMagnitude || options.sparsify == Sparsify::kOutliers;
  return vectors * (ranks ? 2 * RankThreshold::kScratchBytes : 0);
}

}  // namespace cadre::reshape
