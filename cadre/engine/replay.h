#pragma once

/// What each cache policy would have hit on a recorded trace, at several capacities, and what
/// nothing can beat (belady). Runs the same cache that serves, without bytes and without prefetch.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cadre/base/plot.h"
#include "cadre/base/table.h"
#include "cadre/engine/cache_policy.h"
#include "cadre/engine/trace.h"

namespace cadre::engine {

struct ReplayCell {
  std::string policy;
  int64_t capacity = 0;  ///< experts
  double cycles = 0;     ///< capacity / (used * layers): what one token needs is 1
  int64_t requests = 0;  ///< distinct (layer, expert) of each pass, summed
  int64_t hits = 0;
  double hit_rate() const {
    return requests > 0 ? static_cast<double>(hits) / static_cast<double>(requests) : 0;
  }
};

struct ReplayOptions {
  int64_t warm_up = 0;        ///< passes that fill the cache and are not counted
  PolicyOptions policy = {};  ///< but for grid and future, which the trace gives
};

/// One cell. plec is given the true routes of each pass as its forecast: how well it does with a
/// perfect predictor.
ReplayCell replay(const RouteTrace& trace, std::string_view policy, int64_t capacity,
                  ReplayOptions options = {});

/// Every policy at every capacity (experts), policies in the order of cache_policies().
std::vector<ReplayCell> replay_all(const RouteTrace& trace, const std::vector<int64_t>& capacities,
                                   const ReplayOptions& options = {});

/// The same tokens one pass each: a prompt as if it had been generated.
RouteTrace token_by_token(const RouteTrace& trace);

/// The capacity in experts of so many cycles.
int64_t capacity_of(const RouteTrace& trace, double cycles);

/// How often each expert was used in the trace, [layers, experts]; decayed as the policies do when
/// `half_life` is above 0.
std::vector<float> use_counts(const RouteTrace& trace, double half_life);

Table replay_table(const std::vector<ReplayCell>& cells);
LineChart replay_chart(const std::vector<ReplayCell>& cells, const std::string& title);

}  // namespace cadre::engine
