#pragma once

/// Which expert to give up when the cache is full. A policy sees every routing decision and says
/// how much each expert is worth keeping; the cache evicts what is worth least.

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace cadre::engine {

struct RouteTrace;

/// Experts are counted through the model: id = layer * experts + expert.
struct ExpertGrid {
  int64_t layers = 0, experts = 0;
  int64_t size() const { return layers * experts; }
  int64_t id(int64_t layer, int64_t expert) const { return layer * experts + expert; }
  int64_t layer_of(int64_t id) const { return id / experts; }
  int32_t expert_of(int64_t id) const { return static_cast<int32_t>(id % experts); }
  /// Layers from `layer` until that of `id` comes next: 1 .. layers, its own being farthest.
  int64_t distance(int64_t layer, int64_t id) const {
    const int64_t ahead = layer_of(id) - layer;
    return ahead > 0 ? ahead : ahead + layers;
  }
};

class CachePolicy {
 public:
  virtual ~CachePolicy() = default;
  /// Forward pass `pass` (counted from 0) has come to `layer`.
  virtual void reach(int64_t pass, int64_t layer) = 0;
  /// The router of the layer reached chose this expert, with this summed weight.
  virtual void use(int64_t id, float weight) = 0;
  /// What an expert is worth now, after the layer reached; the least is evicted.
  virtual double keep(int64_t id) const = 0;
  /// What an expert would be worth if it were used with this probability at its layer's next turn:
  /// a guess may evict only what is worth less.
  virtual double keep_guess(int64_t id, double probability) const { return keep(id) + probability; }
  /// The experts that the pass which begins is expected to need, in all layers.
  virtual void forecast(std::span<const int64_t> ids) { (void)ids; }
};

struct PolicyOptions {
  ExpertGrid grid;
  double half_life = 8;           ///< passes after which a use counts half (score, plec)
  double nearness = 0.3;          ///< worth of the layer that comes next, in uses (score, plec)
  std::vector<float> prior = {};  ///< uses before the first pass, by expert; empty = none (score,
                                  ///< lfu, plec)
  const RouteTrace* future = nullptr;  ///< what will be routed (belady); must outlive the policy
};

struct PolicyEntry {
  std::string_view name, help, source;
  std::unique_ptr<CachePolicy> (*make)(const PolicyOptions&);
};

/// All policies; score is the default.
std::span<const PolicyEntry> cache_policies();

/// By name. Throws UsageError that lists the names, or when belady is asked for without a trace.
std::unique_ptr<CachePolicy> make_cache_policy(std::string_view name, const PolicyOptions& options);

}  // namespace cadre::engine
