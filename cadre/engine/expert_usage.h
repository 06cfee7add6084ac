#pragma once

/// How often each expert was used, remembered from run to run: a prior for the cache, never a pin
/// (what is hot changes with the text).

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cadre/engine/cache_policy.h"

namespace cadre::engine {

/// Uses a pass, by expert, averaged over the passes seen with older ones fading (512 passes halve).
class ExpertUsage {
 public:
  explicit ExpertUsage(const ExpertGrid& grid) : rates_(grid.size(), 0.0F) {}
  void add_pass(const std::vector<int64_t>& ids);
  const std::vector<float>& rates() const { return rates_; }
  /// What a policy's decayed use count (half-life in passes) would be after long use at these
  /// rates.
  std::vector<float> prior(double half_life) const;
  void set_rates(std::vector<float> rates) { rates_ = std::move(rates); }

 private:
  std::vector<float> rates_;
};

/// $XDG_CACHE_HOME/cadre or ~/.cache/cadre; empty when neither variable is set.
std::filesystem::path cache_folder();

/// Reads what an earlier run left for the model of this fingerprint; nothing when there is none, or
/// when it is unusable (a cache may always be deleted).
std::optional<std::vector<float>> load_usage(const std::filesystem::path& folder,
                                             const std::string& fingerprint,
                                             const ExpertGrid& grid);

/// Leaves it for the next run. Says so in the log (debug) when it cannot.
void save_usage(const std::filesystem::path& folder, const std::string& fingerprint,
                const ExpertGrid& grid, const std::vector<float>& rates);

}  // namespace cadre::engine
