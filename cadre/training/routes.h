#pragma once

/// Who does what: how often each expert works on each domain's tokens.

#include <torch/torch.h>

#include <string>
#include <vector>

#include "cadre/data/token_batches.h"
#include "cadre/training/language_model.h"

namespace cadre {

struct LayerRoutes {
  int64_t layer = 0;
  /// share[d][e]: share of domain d's pairs that expert e takes; each row sums to 1.
  std::vector<std::vector<double>> share;
  std::vector<double> entropy;  ///< mean router entropy per domain, nats
  /// Mean over domain pairs of the total-variation distance of their rows, 0 (all alike) to 1 (no
  /// common expert).
  double specialization = 0;
};

struct RoutesReport {
  std::vector<std::string> domains;
  int64_t experts = 0, experts_per_token = 0, tokens = 0;
  std::vector<LayerRoutes> layers;
};

/// Runs each domain's batches (validation_batches() makes them) through the model, without
/// gradient. Throws UsageError for a model without expert layers, or a domain without batches.
RoutesReport collect_routes(LanguageModel& model, const std::vector<std::string>& names,
                            const std::vector<std::vector<TokenBatch>>& batches);

}  // namespace cadre
