#pragma once

/// Who does what: how often each expert works on each domain's tokens.

#include <torch/torch.h>

#include <string>
#include <vector>

#include "cadre/data/token_batches.h"
#include "cadre/training/language_model.h"
#include "cadre/training/token_classes.h"

namespace cadre {

struct LayerRoutes {
  int64_t layer = 0;
  /// share[d][e]: share of domain d's pairs that expert e takes; each row sums to 1.
  std::vector<std::vector<double>> share;
  std::vector<double> entropy;  ///< mean router entropy per domain, nats
  std::vector<double> mean_k;   ///< experts a token per domain
  std::vector<double> class_k;  ///< experts a token per token class; 0 for a class without tokens
  /// Mean over domain pairs of the total-variation distance of their rows, 0 (all alike) to 1 (no
  /// common expert).
  double specialization = 0;
};

struct RoutesReport {
  std::vector<std::string> domains;
  int64_t experts = 0, experts_per_token = 0, tokens = 0;
  std::vector<std::string> classes;
  std::vector<int64_t> class_tokens;  ///< tokens of each class
  std::vector<LayerRoutes> layers;
};

/// How two models route the same tokens in one layer.
struct LayerDifference {
  int64_t layer = 0;
  double overlap = 0;  ///< mean over tokens of common experts / experts of either; 1 = the same
  double load_distance = 0;  ///< total variation of the experts' shares of the pairs
  double mean_k = 0, other_mean_k = 0;
};

/// Runs each domain's batches (validation_batches() makes them) through the model, without
/// gradient. Throws UsageError for a model without expert layers, or a domain without batches.
RoutesReport collect_routes(LanguageModel& model, const std::vector<std::string>& names,
                            const std::vector<std::vector<TokenBatch>>& batches,
                            const TokenClasses& classes = {});

/// Runs the same batches through both. Throws UsageError unless both have the same layers with
/// experts and as many experts.
std::vector<LayerDifference> compare_routes(LanguageModel& model, LanguageModel& other,
                                            const std::vector<std::vector<TokenBatch>>& batches);

}  // namespace cadre
