#pragma once

/// Token-choice top-k routing at run time: what the learn wing's TopKRouter and published models
/// do. Scores g = squash(logits); selection: the k largest of g + bias, within the best groups;
/// weights: g of the selected (without bias), divided by their sum when normalised, times scale.
/// Ties go to the lower expert.

#include <cstdint>
#include <optional>
#include <vector>

#include "cadre/engine/model_spec.h"

namespace cadre::engine {

/// Run-time routing knobs that need no retraining.
struct RoutingOverrides {
  std::optional<int64_t> experts_per_token = {};
  std::optional<float> top_p = {};  ///< keep a token's first experts that hold this share of its k
  float skip_cold = 0.0F;  ///< skip a non-resident expert whose weight is below this share of 1 /
                           ///< k; 0 = never
};

/// Knobs of one call.
struct RouteChoice {
  int64_t k = 1;
  std::optional<float> top_p;  ///< keep the first experts that hold this share of the k's scores
};

class Router {
 public:
  /// `bias` [experts] moves the selection only; empty = none.
  Router(const RouterSpec& spec, int64_t experts, std::vector<float> bias);

  /// Chooses for one token: `experts` and `weights` [choice.k], best first, -1 and 0 where top_p
  /// left one out. `logits` [experts] must be finite, and are overwritten.
  void choose(const RouteChoice& choice, float* logits, int32_t* experts, float* weights) const;
  int64_t experts() const { return experts_; }
  /// The most experts a token can have.
  int64_t reachable() const { return experts_ / spec_.groups * spec_.groups_used; }

 private:
  void limit_to_groups(float* scores) const;
  void sparse_mixer(int64_t k, float* logits, int32_t* experts, float* weights) const;

  RouterSpec spec_;
  int64_t experts_;
  std::vector<float> bias_;
};

}  // namespace cadre::engine
