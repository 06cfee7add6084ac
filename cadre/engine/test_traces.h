#pragma once

/// For tests: traces with the two habits of real ones, experts that are popular and experts that
/// were used just before.

#include <algorithm>
#include <vector>

#include "cadre/base/random.h"
#include "cadre/engine/trace.h"

namespace cadre::engine {

struct RandomTraceOptions {
  int64_t tokens = 64, layers = 4, experts = 16, used = 2;
  double repeat = 0.4;  ///< chance that an expert of the token before is taken again
  uint64_t seed = 1;
};

inline RouteTrace random_trace(const RandomTraceOptions& options) {
  TraceRecorder recorder({.model = "random",
                          .layers = options.layers,
                          .experts = options.experts,
                          .used = options.used,
                          .expert_bytes = 4096});
  Random random(options.seed);
  std::vector<std::vector<int32_t>> before(options.layers);
  for (int64_t t = 0; t < options.tokens; ++t) {
    recorder.add_token(static_cast<int32_t>(t), 0, static_cast<int32_t>(random.below(100)));
    for (int64_t layer = 0; layer < options.layers; ++layer) {
      std::vector<int32_t> experts;
      while (static_cast<int64_t>(experts.size()) < options.used) {
        // The square makes low numbers popular.
        const double u = random.uniform();
        auto expert = static_cast<int32_t>(u * u * static_cast<double>(options.experts));
        if (!before[layer].empty() && random.uniform() < options.repeat)
          expert = before[layer][random.below(before[layer].size())];
        if (std::find(experts.begin(), experts.end(), expert) == experts.end())
          experts.push_back(expert);
      }
      const std::vector<float> weights(experts.size(), 1.0F / static_cast<float>(options.used));
      recorder.add_route(t, layer, experts, weights);
      before[layer] = experts;
    }
  }
  return recorder.trace();
}

}  // namespace cadre::engine
