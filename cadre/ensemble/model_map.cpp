#include "cadre/ensemble/model_map.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "cadre/base/error.h"

namespace cadre::ensemble {
namespace {

constexpr int64_t kMostModels = 20;

void check(const ModelMapProblem& p) {
  if (p.models < 1 || p.models > kMostModels || p.categories < 1) {
    throw UsageError("model map: {} models and {} categories (1 to {} models, 1 category or more)",
                     p.models, p.categories, kMostModels);
  }
  const auto table = static_cast<size_t>(p.categories * p.models);
  if (p.loss.size() != table || p.share.size() != static_cast<size_t>(p.categories) ||
      p.size.size() != static_cast<size_t>(p.models) ||
      (!p.error.empty() && p.error.size() != table)) {
    throw UsageError("model map: tables do not fit {} categories and {} models", p.categories,
                     p.models);
  }
  if (p.general < -1 || p.general >= p.models) {
    throw UsageError("model map: the general model is {} of {}", p.general, p.models);
  }
  int64_t total = 0;
  for (const int64_t size : p.size) {
    if (size < 1 || __builtin_add_overflow(total, size, &total)) {
      throw UsageError("model map: a model's size is {}", size);
    }
  }
  for (const double share : p.share) {
    if (!(share >= 0 && std::isfinite(share))) {
      throw UsageError("model map: a category's share is {}", share);
    }
  }
}

class Search {
 public:
  explicit Search(const ModelMapProblem& problem) : p_(problem) {}

  ModelMap best() {
    std::optional<ModelMap> best;
    int64_t cheapest = std::numeric_limits<int64_t>::max();
    const uint32_t always = p_.general < 0 ? 0 : uint32_t{1} << p_.general;
    for (uint32_t set = 1; set < uint32_t{1} << p_.models; ++set) {
      if ((set & always) != always) continue;
      const auto map = map_within(set);
      if (!map) continue;
      cheapest = std::min(cheapest, map->size);
      if (map->size > p_.budget) continue;
      const bool better =
          !best || map->loss < best->loss || (map->loss == best->loss && map->size < best->size);
      if (better) best = map;
    }
    if (best) return *best;
    if (cheapest == std::numeric_limits<int64_t>::max()) {
      throw UsageError("model map: a category has no model that was measured on it");
    }
    throw UsageError("model map: a budget of {} holds no models for all categories, {} would",
                     p_.budget, cheapest);
  }

 private:
  double loss(int64_t c, int64_t m) const { return p_.loss[c * p_.models + m]; }
  double error(int64_t c, int64_t m) const {
    return p_.error.empty() ? 0 : p_.error[c * p_.models + m];
  }

  bool better(int64_t c, int64_t m, int64_t than) const {
    if (than < 0 || loss(c, m) < loss(c, than)) return true;
    return loss(c, m) == loss(c, than) && p_.size[m] < p_.size[than];
  }

  /// The best of the set for a category; -1 when none was measured.
  int64_t pick(int64_t c, uint32_t set) const {
    int64_t best = -1;
    for (int64_t m = 0; m < p_.models; ++m) {
      if ((set >> m & 1) != 0 && !std::isnan(loss(c, m)) && better(c, m, best)) best = m;
    }
    const int64_t g = p_.general;
    if (best < 0 || g < 0 || std::isnan(loss(c, g))) return best;
    const double noise = std::hypot(error(c, best), error(c, g));
    return loss(c, g) - loss(c, best) > p_.margin * noise ? best : g;
  }

  std::optional<ModelMap> map_within(uint32_t set) const {
    ModelMap map;
    uint32_t used = p_.general < 0 ? 0 : uint32_t{1} << p_.general;
    for (int64_t c = 0; c < p_.categories; ++c) {
      const int64_t m = pick(c, set);
      if (m < 0) return std::nullopt;
      map.model.push_back(m);
      used |= uint32_t{1} << m;
      map.loss += p_.share[c] * loss(c, m);
      map.active += p_.share[c] * static_cast<double>(p_.size[m]);
    }
    for (int64_t m = 0; m < p_.models; ++m) map.size += (used >> m & 1) != 0 ? p_.size[m] : 0;
    return map;
  }

  const ModelMapProblem& p_;
};

}  // namespace

ModelMap best_model_map(const ModelMapProblem& problem) {
  check(problem);
  return Search(problem).best();
}

}  // namespace cadre::ensemble
