#pragma once

/// Routing at run time: what published models and the learn wing's routers do that choose for each
/// token alone. Scores g = squash(logits); selection: the k largest of g + bias, within the best
/// groups, or the most probable up to a sum p; null experts are left out; weights: g of the
/// selected (without bias), divided by their sum when normalised, times scale. Ties go to the lower
/// expert. The learn wing's golden files (tests/golden/routing) are checked on both sides.

#include <cstdint>
#include <optional>
#include <vector>

#include "cadre/engine/model_spec.h"

namespace cadre::engine {

/// Run-time routing knobs that need no retraining.
struct RoutingOverrides {
  std::optional<int64_t> experts_per_token = {};
  /// Keep a token's first experts that hold this share of its k; for a top_p router its p.
  std::optional<float> top_p = {};
  float null_bias = 0.0F;  ///< added to the logits of null experts: above 0 = fewer true experts
  float skip_cold = 0.0F;  ///< skip a non-resident expert whose weight is below this share of 1 /
                           ///< k; 0 = never
};

/// Knobs of one call.
struct RouteChoice {
  int64_t k = 1;
  std::optional<float> top_p = {};  ///< as in RoutingOverrides
  float null_bias = 0.0F;
};

class Router {
 public:
  /// `bias` [experts] moves the selection only; empty = none.
  Router(const RouterSpec& spec, int64_t experts, std::vector<float> bias);

  /// Chooses for one token: `experts` and `weights` [choice.k], best first, -1 and 0 at the end
  /// where it has fewer. `logits` [columns()] must be finite, and are overwritten.
  void choose(const RouteChoice& choice, float* logits, int32_t* experts, float* weights) const;
  int64_t experts() const { return experts_; }
  /// Scores a token has: true and null experts.
  int64_t columns() const { return experts_ + spec_.nulls; }
  /// The most ids a token can choose.
  int64_t reachable() const { return columns() / spec_.groups * spec_.groups_used; }

 private:
  void limit_to_groups(float* scores) const;
  int64_t select(const RouteChoice& choice, const float* scores, int32_t* ids) const;
  int64_t select_prefix(const RouteChoice& choice, const float* probs, int32_t* ids) const;
  int64_t drop_nulls(int64_t count, int32_t* ids, float* weights) const;
  void sparse_mixer(int64_t k, float* logits, int32_t* experts, float* weights) const;

  RouterSpec spec_;
  int64_t experts_;
  std::vector<float> bias_;
};

}  // namespace cadre::engine
