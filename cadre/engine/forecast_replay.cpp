#include "cadre/engine/forecast_replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "cadre/base/error.h"
#include "cadre/engine/expert_cache.h"
#include "cadre/engine/path_predictor.h"

namespace cadre::engine {
namespace {

/// Where the pass that begins at token `first` ends.
int64_t pass_end(const RouteTrace& trace, int64_t first) {
  int64_t last = first;
  while (last < trace.size() && trace.passes[last] == trace.passes[first]) ++last;
  return last;
}

/// Distinct experts of a layer that tokens [first, last) use, with their weights.
std::map<int64_t, float> needed(const RouteTrace& trace, int64_t first, int64_t last,
                                int64_t layer) {
  std::map<int64_t, float> ids;
  for (int64_t token = first; token < last; ++token) {
    const auto experts = trace.at(token, layer);
    for (size_t i = 0; i < experts.size(); ++i)
      if (experts[i] >= 0)
        ids[layer * trace.experts + experts[i]] += trace.weights_at(token, layer)[i];
  }
  return ids;
}

class Clockwork {
 public:
  Clockwork(const RouteTrace& trace, std::string_view policy, int64_t capacity,
            double reads_per_layer)
      : grid_{.layers = trace.layers, .experts = trace.experts},
        cache_({.grid = grid_, .capacity = capacity, .staging = trace.experts},
               make_cache_policy(policy, {.grid = grid_, .future = &trace})),
        read_time_(1 / reads_per_layer),
        ahead_(grid_.size(), 0) {}

  void begin_pass(int64_t pass, const std::vector<int64_t>* forecast) {
    pass_ = pass;
    queue_.clear();
    if (forecast == nullptr) return;
    cache_.policy().forecast(*forecast);
    std::vector<int64_t> demand(grid_.layers, 0);
    for (const int64_t id : *forecast) ++demand[grid_.layer_of(id)];
    std::vector<int64_t> slots = plec_slots(demand, cache_.options().capacity);
    for (const int64_t id : *forecast)
      if (slots[grid_.layer_of(id)]-- > 0 && cache_.state(id) == ExpertCache::State::kAbsent)
        queue_.push_back(id);
    std::reverse(queue_.begin(), queue_.end());  // the next one is the last
  }

  void run_layer(int64_t layer, const std::map<int64_t, float>& ids, ForecastCell& cell) {
    cache_.policy().reach(pass_, layer);
    double ready = now_;
    for (const auto& [id, weight] : ids) {
      cache_.policy().use(id, weight);
      cache_.pin(id);
      const auto state = cache_.state(id);
      ++cell.requests;
      if (state == ExpertCache::State::kResident) ++cell.hits;
      if (state == ExpertCache::State::kLoading) ready = std::max(ready, disk_free_);
      if (ahead_[id] != 0 && state != ExpertCache::State::kAbsent) --cell.unused;
      ahead_[id] = 0;
    }
    finish_read();
    for (const auto& [id, weight] : ids)
      if (cache_.state(id) == ExpertCache::State::kAbsent) ready = read_now(id, cell);
    for (const auto& [id, weight] : ids) cache_.unpin(id);
    cache_.trim();
    cell.stall += std::max(0.0, ready - now_);
    read_ahead(layer, std::max(ready, now_) + 1, cell);
    now_ = std::max(ready, now_) + 1;
    if (disk_free_ <= now_) finish_read();
  }

 private:
  double read_now(int64_t id, ForecastCell& cell) {
    if (!cache_.reserve(id)) throw Error("replay: the staging slots do not hold a layer");
    cache_.loaded(id);
    ++cell.reads;
    return disk_free_ = std::max(disk_free_, now_) + read_time_;
  }

  /// Whatever can be begun before `end`; the last one may still be on its way then.
  void read_ahead(int64_t layer, double end, ForecastCell& cell) {
    while (!queue_.empty() && std::max(disk_free_, now_) < end) {
      const int64_t id = queue_.back();
      queue_.pop_back();
      if (grid_.layer_of(id) <= layer || cache_.state(id) != ExpertCache::State::kAbsent) continue;
      finish_read();
      if (!cache_.reserve_guess(id, cache_.policy().keep_guess(id, 1))) continue;
      loading_ = id;
      disk_free_ = std::max(disk_free_, now_) + read_time_;
      ahead_[id] = 1;
      ++cell.reads;
      ++cell.unused;
    }
  }

  void finish_read() {
    if (loading_ >= 0 && cache_.state(loading_) == ExpertCache::State::kLoading)
      cache_.loaded(loading_);
    loading_ = -1;
  }

  ExpertGrid grid_;
  ExpertCache cache_;
  double read_time_, now_ = 0, disk_free_ = 0;
  std::vector<int64_t> queue_;
  std::vector<uint8_t> ahead_;  ///< by expert: read ahead and not used yet
  int64_t pass_ = 0, loading_ = -1;
};

}  // namespace

ForecastCell replay_forecasts(const RouteTrace& trace, std::string_view policy,
                              const Forecasts& forecasts, int64_t capacity,
                              double reads_per_layer) {
  if (!(reads_per_layer > 0))
    throw UsageError("reads per layer are {}, must be above 0", reads_per_layer);
  Clockwork clockwork(trace, policy, capacity, reads_per_layer);
  ForecastCell cell = {.policy = std::string(policy), .capacity = capacity};
  size_t pass = 0;
  for (int64_t first = 0; first < trace.size(); ++pass) {
    const int64_t last = pass_end(trace, first);
    clockwork.begin_pass(trace.passes[first], pass < forecasts.size() ? &forecasts[pass] : nullptr);
    for (int64_t layer = 0; layer < trace.layers; ++layer)
      if (const auto ids = needed(trace, first, last, layer); !ids.empty())
        clockwork.run_layer(layer, ids, cell);
    first = last;
  }
  if (pass > 0) cell.stall /= static_cast<double>(pass);
  return cell;
}

Forecasts path_forecasts(const RouteTrace& all, const std::filesystem::path& predictor) {
  if (all.tokens.empty()) throw UsageError("the trace does not say its tokens");
  PathModel model(predictor, all.layers, all.experts);
  std::map<int32_t, std::vector<int32_t>> texts;
  Forecasts forecasts;
  for (int64_t first = 0; first < all.size();) {
    const int64_t last = pass_end(all, first);
    const auto sequence = all.sequences.begin();
    const std::set<int32_t> sequences(sequence + first, sequence + last);
    std::set<int64_t> expected;
    const bool decodes = static_cast<int64_t>(sequences.size()) == last - first;
    for (int64_t i = first; i < last; ++i) {
      texts[all.sequences[i]].push_back(all.tokens[i]);
      if (!decodes) continue;
      const auto logits = model.forecast(all.sequences[i], all.tokens[i]);
      for (const int64_t id : likeliest(logits, all.layers, all.experts, 2 * model.used()))
        expected.insert(id);
    }
    if (decodes) forecasts.emplace_back(expected.begin(), expected.end());
    for (const int32_t one : sequences)
      if (!decodes) model.begin_sequence(one, texts[one]);
    first = last;
  }
  return forecasts;
}

Forecasts true_forecasts(const RouteTrace& trace) {
  Forecasts forecasts;
  for (int64_t first = 0; first < trace.size();) {
    const int64_t last = pass_end(trace, first);
    forecasts.emplace_back();
    for (int64_t layer = 0; layer < trace.layers; ++layer)
      for (const auto& [id, weight] : needed(trace, first, last, layer))
        forecasts.back().push_back(id);
    first = last;
  }
  return forecasts;
}

std::vector<ForecastCell> compare_forecasts(const RouteTrace& trace, const Forecasts& forecasts,
                                            const std::vector<int64_t>& capacities,
                                            double reads_per_layer) {
  struct Arm {
    const char *policy, *forecast;
    const Forecasts* given;
  };
  const Forecasts none, truth = true_forecasts(trace);
  std::vector<ForecastCell> cells;
  for (const int64_t capacity : capacities)
    for (const Arm& arm : {Arm{"lru", "none", &none}, Arm{"lfu", "none", &none},
                           Arm{"score", "none", &none}, Arm{"plec", "path", &forecasts},
                           Arm{"plec", "true routes", &truth}, Arm{"belady", "none", &none}}) {
      cells.push_back(replay_forecasts(trace, arm.policy, *arm.given, capacity, reads_per_layer));
      cells.back().forecast = arm.forecast;
    }
  return cells;
}

Table forecast_table(const std::vector<ForecastCell>& cells) {
  Table table({"capacity", "policy", "forecast", "hits %", "reads", "unused", "waiting"});
  for (const ForecastCell& cell : cells)
    table.add_row({std::to_string(cell.capacity), cell.policy, cell.forecast,
                   fmt::format("{:.1f}", 100 * cell.hit_rate()), std::to_string(cell.reads),
                   std::to_string(cell.unused), fmt::format("{:.2f}", cell.stall)});
  return table;
}

}  // namespace cadre::engine
