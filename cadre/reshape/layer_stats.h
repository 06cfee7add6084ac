#pragma once

/// Names in a statistics file, of one layer each: "layers.3.usage". Written by calibrate.h.

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "cadre/reshape/plan.h"

namespace cadre::reshape {

// Layers with experts.
inline constexpr const char* kUsage = "usage";  ///< [E] share of the choices
inline constexpr const char* kReach = "reach";  ///< [E] router weight a token, on average
inline constexpr const char* kLogitsGram = "logits_gram";      ///< [E, E] mean of logits_i logits_j
inline constexpr const char* kExpertOutput = "expert_output";  ///< [E, D] mean over some tokens
inline constexpr const char* kContribution = "contribution";   ///< [E] mean of weight * |output|
// Dense layers: a = act(W_gate x) * (W_up x).
inline constexpr const char* kActivity = "activity";     ///< [texts, H] mean of |a|
inline constexpr const char* kFeatures = "activations";  ///< [H, segments] mean of |a| in a segment
// All layers: what the feed-forward and its router see.
inline constexpr const char* kHiddenMean = "hidden_mean";      ///< [D]
inline constexpr const char* kHiddenSquare = "hidden_square";  ///< [D] mean of squares

std::string stat_name(int64_t layer, const std::string& what);
/// Throws UsageError when it is missing, or of another shape: statistics of another model.
std::vector<double> layer_stat(const StatsIndex& stats, int64_t layer, const std::string& what,
                               const std::vector<int64_t>& shape);

}  // namespace cadre::reshape
