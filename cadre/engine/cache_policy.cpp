#include "cadre/engine/cache_policy.h"

#include <fmt/ranges.h>

#include <array>
#include <cmath>
#include <limits>

#include "cadre/base/error.h"
#include "cadre/engine/trace.h"

namespace cadre::engine {
namespace {

/// keep = f 2^(-(now - last) / H) + a (1 - d / L): decayed use count, and the nearness of the
/// expert's layer in the cycle of layers. Plain recency is worst possible below one cycle: the
/// layers come round in turn, so LRU evicts exactly what is needed next.
class ScorePolicy : public CachePolicy {
 public:
  explicit ScorePolicy(const PolicyOptions& options)
      : grid_(options.grid),
        nearness_(options.nearness),
        count_(grid_.size(), 0.0F),
        last_(grid_.size(), 0),
        decay_(static_cast<size_t>(std::ceil(options.half_life * 64)) + 1),
        bonus_(grid_.layers, 0.0) {
    if (options.prior.size() == count_.size()) count_ = options.prior;
    for (size_t age = 0; age + 1 < decay_.size(); ++age)
      decay_[age] = std::exp2(-static_cast<double>(age) / options.half_life);
  }

  void reach(int64_t pass, int64_t layer) override {
    pass_ = pass;
    layer_ = layer;
    for (int64_t other = 0; other < grid_.layers; ++other) {
      const auto distance = static_cast<double>(grid_.distance(layer, other * grid_.experts));
      bonus_[other] = nearness_ * (1 - distance / static_cast<double>(grid_.layers));
    }
  }

  void use(int64_t id, float) override {
    count_[id] = static_cast<float>(count_[id] * decayed(id) + 1);
    last_[id] = pass_;
  }

  double keep(int64_t id) const override {
    return count_[id] * decayed(id) + bonus_[grid_.layer_of(id)];
  }

 protected:
  const ExpertGrid& grid() const { return grid_; }
  int64_t layer() const { return layer_; }
  double bonus(int64_t id) const { return bonus_[grid_.layer_of(id)]; }

 private:
  /// After 64 half-lives a use is forgotten: the table's last entry is 0.
  double decayed(int64_t id) const {
    const auto age = static_cast<size_t>(pass_ - last_[id]);
    return decay_[std::min(age, decay_.size() - 1)];
  }

  ExpertGrid grid_;
  double nearness_;
  std::vector<float> count_;
  std::vector<int64_t> last_;
  std::vector<double> decay_;  ///< by age
  std::vector<double> bonus_;  ///< by layer, of the layer reached
  int64_t pass_ = 0, layer_ = 0;
};

/// What the forecast of this pass names in layers still to come stays above everything else, nearer
/// layers first; for the rest the score decides.
class PlecPolicy final : public ScorePolicy {
 public:
  explicit PlecPolicy(const PolicyOptions& options)
      : ScorePolicy(options), expected_(grid().size(), 0) {}

  void forecast(std::span<const int64_t> ids) override {
    std::fill(expected_.begin(), expected_.end(), 0);
    for (const int64_t id : ids) expected_[id] = 1;
  }

  double keep(int64_t id) const override {
    if (expected_[id] != 0 && grid().layer_of(id) > layer()) return kExpected + bonus(id);
    return ScorePolicy::keep(id);
  }

 private:
  static constexpr double kExpected = 1e3;
  std::vector<uint8_t> expected_;
};

class LruPolicy final : public CachePolicy {
 public:
  explicit LruPolicy(const PolicyOptions& options)
      : layers_(options.grid.layers), last_(options.grid.size(), -1) {}
  void reach(int64_t pass, int64_t layer) override { now_ = pass * layers_ + layer; }
  void use(int64_t id, float) override { last_[id] = now_; }
  double keep(int64_t id) const override { return static_cast<double>(last_[id]); }
  double keep_guess(int64_t, double) const override { return static_cast<double>(now_); }

 private:
  int64_t layers_, now_ = 0;
  std::vector<int64_t> last_;
};

/// Uses since the start; of equal ones the most recent stays.
class LfuPolicy final : public CachePolicy {
 public:
  explicit LfuPolicy(const PolicyOptions& options)
      : recency_(options), count_(options.grid.size(), 0.0F) {
    if (options.prior.size() == count_.size()) count_ = options.prior;
  }
  void reach(int64_t pass, int64_t layer) override { recency_.reach(pass, layer); }
  void use(int64_t id, float weight) override {
    recency_.use(id, weight);
    count_[id] += 1;
  }
  double keep(int64_t id) const override { return count_[id] + 1e-9 * recency_.keep(id); }

 private:
  LruPolicy recency_;
  std::vector<float> count_;
};

/// Evicts what is needed again last (Belady, "A study of replacement algorithms", 1966): no policy
/// has more hits.
class BeladyPolicy final : public CachePolicy {
 public:
  explicit BeladyPolicy(const PolicyOptions& options)
      : uses_(options.grid.size()), next_(options.grid.size(), 0) {
    if (options.future == nullptr)
      throw UsageError(
          "cache policy belady needs a trace of what will be routed: it serves replay");
    const RouteTrace& trace = *options.future;
    for (int64_t token = 0; token < trace.size(); ++token)
      for (int64_t layer = 0; layer < trace.layers; ++layer)
        for (const int16_t expert : trace.at(token, layer)) {
          if (expert < 0) continue;
          const int64_t now = trace.passes[token] * trace.layers + layer;
          std::vector<int64_t>& uses = uses_[options.grid.id(layer, expert)];
          if (uses.empty() || uses.back() != now) uses.push_back(now);
        }
  }
  void reach(int64_t, int64_t) override {}
  void use(int64_t id, float) override { ++next_[id]; }
  double keep(int64_t id) const override {
    return next_[id] < uses_[id].size() ? -static_cast<double>(uses_[id][next_[id]])
                                        : -std::numeric_limits<double>::infinity();
  }

 private:
  std::vector<std::vector<int64_t>> uses_;  ///< positions (pass, layer) by expert
  std::vector<size_t> next_;
};

template <typename Policy>
std::unique_ptr<CachePolicy> make(const PolicyOptions& options) {
  return std::make_unique<Policy>(options);
}

constexpr std::array kPolicies = {
    PolicyEntry{"score", "decayed use count, and how soon the expert's layer comes again", "cadre",
                &make<ScorePolicy>},
    PolicyEntry{"lru", "least recently used", "the usual baseline", &make<LruPolicy>},
    PolicyEntry{"lfu", "least frequently used", "the usual baseline", &make<LfuPolicy>},
    PolicyEntry{"plec", "what the predictor names for layers to come stays; else as score",
                "ExpertFlow (2024), predictive locality-aware expert caching", &make<PlecPolicy>},
    PolicyEntry{"belady", "what is needed again last goes: the bound, for replay only",
                "Belady (1966)", &make<BeladyPolicy>},
};

}  // namespace

std::span<const PolicyEntry> cache_policies() { return kPolicies; }

std::unique_ptr<CachePolicy> make_cache_policy(std::string_view name,
                                               const PolicyOptions& options) {
  std::vector<std::string_view> names;
  for (const PolicyEntry& entry : kPolicies) {
    if (entry.name == name) return entry.make(options);
    names.push_back(entry.name);
  }
  throw UsageError("unknown cache policy '{}': use one of {}", name, fmt::join(names, ", "));
}

}  // namespace cadre::engine
