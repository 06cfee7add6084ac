#include "cadre/engine/replay.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/engine/expert_cache.h"

namespace cadre::engine {
namespace {

/// The tokens [first, last) of the pass that begins at token `first`.
int64_t pass_end(const RouteTrace& trace, int64_t first) {
  int64_t last = first;
  while (last < trace.size() && trace.passes[last] == trace.passes[first]) ++last;
  return last;
}

/// Distinct experts that tokens [first, last) use in a layer, with summed weights.
std::map<int64_t, float> needed(const RouteTrace& trace, int64_t first, int64_t last,
                                int64_t layer) {
  std::map<int64_t, float> ids;
  for (int64_t token = first; token < last; ++token) {
    const auto experts = trace.at(token, layer);
    const auto weights = trace.weights_at(token, layer);
    for (size_t i = 0; i < experts.size(); ++i)
      if (experts[i] >= 0) ids[layer * trace.experts + experts[i]] += weights[i];
  }
  return ids;
}

std::vector<int64_t> true_routes(const RouteTrace& trace, int64_t first, int64_t last) {
  std::vector<int64_t> ids;
  for (int64_t layer = 0; layer < trace.layers; ++layer)
    for (const auto& [id, weight] : needed(trace, first, last, layer)) ids.push_back(id);
  return ids;
}

int64_t run_layer(ExpertCache& cache, const std::map<int64_t, float>& ids) {
  int64_t hits = 0;
  for (const auto& [id, weight] : ids) {
    cache.policy().use(id, weight);
    cache.pin(id);
    if (cache.state(id) == ExpertCache::State::kResident) {
      ++hits;
    } else if (cache.reserve(id)) {
      cache.loaded(id);
    } else {
      throw Error("replay: the staging slots do not hold a layer");
    }
  }
  for (const auto& [id, weight] : ids) cache.unpin(id);
  cache.trim();
  return hits;
}

}  // namespace

ReplayCell replay(const RouteTrace& trace, std::string_view policy, int64_t capacity,
                  ReplayOptions options) {
  options.policy.grid = {.layers = trace.layers, .experts = trace.experts};
  options.policy.future = &trace;
  ExpertCache cache({.grid = options.policy.grid, .capacity = capacity, .staging = trace.experts},
                    make_cache_policy(policy, options.policy));
  ReplayCell cell = {
      .policy = std::string(policy),
      .capacity = capacity,
      .cycles = static_cast<double>(capacity) / static_cast<double>(trace.used * trace.layers)};
  int64_t passes = 0;
  for (int64_t first = 0; first < trace.size();) {
    const int64_t last = pass_end(trace, first);
    if (policy == "plec") cache.policy().forecast(true_routes(trace, first, last));
    for (int64_t layer = 0; layer < trace.layers; ++layer) {
      const auto ids = needed(trace, first, last, layer);
      cache.policy().reach(trace.passes[first], layer);
      const int64_t hits = run_layer(cache, ids);
      if (passes < options.warm_up) continue;
      cell.requests += static_cast<int64_t>(ids.size());
      cell.hits += hits;
    }
    ++passes;
    first = last;
  }
  return cell;
}

std::vector<ReplayCell> replay_all(const RouteTrace& trace, const std::vector<int64_t>& capacities,
                                   const ReplayOptions& options) {
  std::vector<ReplayCell> cells;
  for (const int64_t capacity : capacities)
    for (const PolicyEntry& policy : cache_policies())
      cells.push_back(replay(trace, policy.name, capacity, options));
  return cells;
}

RouteTrace token_by_token(const RouteTrace& trace) {
  RouteTrace single = trace;
  std::iota(single.passes.begin(), single.passes.end(), 0);
  return single;
}

int64_t capacity_of(const RouteTrace& trace, double cycles) {
  return std::llround(cycles * static_cast<double>(trace.used * trace.layers));
}

std::vector<float> use_counts(const RouteTrace& trace, double half_life) {
  std::vector<float> counts(trace.layers * trace.experts, 0.0F);
  const int32_t end = trace.passes.empty() ? 0 : trace.passes.back();
  for (int64_t token = 0; token < trace.size(); ++token) {
    const double age = end - trace.passes[token];
    const double worth = half_life > 0 ? std::exp2(-age / half_life) : 1.0;
    for (int64_t layer = 0; layer < trace.layers; ++layer)
      for (const int16_t expert : trace.at(token, layer))
        if (expert >= 0) counts[layer * trace.experts + expert] += static_cast<float>(worth);
  }
  return counts;
}

Table replay_table(const std::vector<ReplayCell>& cells) {
  std::vector<std::string> headers = {"capacity", "cycles"};
  std::map<int64_t, std::vector<std::string>> rows;
  for (const ReplayCell& cell : cells) {
    if (std::find(headers.begin(), headers.end(), cell.policy + " %") == headers.end())
      headers.push_back(cell.policy + " %");
    auto& row = rows[cell.capacity];
    if (row.empty()) row = {std::to_string(cell.capacity), fmt::format("{:.2f}", cell.cycles)};
    row.push_back(fmt::format("{:.1f}", 100 * cell.hit_rate()));
  }
  Table table(headers);
  for (auto& [capacity, row] : rows) table.add_row(row);
  return table;
}

LineChart replay_chart(const std::vector<ReplayCell>& cells, const std::string& title) {
  LineChart chart;
  chart.title = title;
  chart.x_label = "cache, in cycles of one token's experts";
  chart.y_label = "hits, %";
  for (const ReplayCell& cell : cells) {
    auto series = std::find_if(chart.series.begin(), chart.series.end(),
                               [&](const Series& s) { return s.name == cell.policy; });
    if (series == chart.series.end())
      series = chart.series.insert(chart.series.end(), Series{cell.policy, {}, {}});
    series->x.push_back(cell.cycles);
    series->y.push_back(100 * cell.hit_rate());
  }
  return chart;
}

}  // namespace cadre::engine
