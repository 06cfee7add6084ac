#include "cadre/reshape/layer_stats.h"

#include "cadre/base/error.h"

namespace cadre::reshape {

std::string stat_name(int64_t layer, const std::string& what) {
  return fmt::format("layers.{}.{}", layer, what);
}

std::vector<double> layer_stat(const StatsIndex& stats, int64_t layer, const std::string& what,
                               const std::vector<int64_t>& shape) {
  const std::string name = stat_name(layer, what);
  if (stats.shape(name) != shape) {
    throw UsageError("statistic {} has the shape [{}], this model needs [{}]: it is of another one",
                     name, fmt::join(stats.shape(name), ", "), fmt::join(shape, ", "));
  }
  const std::vector<float> values = stats.values(name);
  return {values.begin(), values.end()};
}

}  // namespace cadre::reshape
