#include "cadre/training/routes.h"

#include <cmath>

#include "cadre/base/error.h"

namespace cadre {
namespace {

/// Half the absolute difference: the mass that one row would have to move to become the other.
double total_variation(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::abs(a[i] - b[i]);
  return sum / 2;
}

double mean_distance(const std::vector<std::vector<double>>& rows) {
  double sum = 0;
  int64_t pairs = 0;
  for (size_t a = 0; a < rows.size(); ++a) {
    for (size_t b = a + 1; b < rows.size(); ++b, ++pairs) sum += total_variation(rows[a], rows[b]);
  }
  return pairs > 0 ? sum / static_cast<double>(pairs) : 0;
}

/// What one layer did with one domain.
struct Tally {
  torch::Tensor pairs;  ///< [E] int64
  double entropy = 0;   ///< summed over tokens
  int64_t tokens = 0;

  void add(const ExpertLayer& layer, int64_t batch_tokens) {
    const torch::Tensor load = layer.last_routing().load();
    pairs = pairs.defined() ? pairs + load : load;
    entropy += layer.stats().entropy * static_cast<double>(batch_tokens);
    tokens += batch_tokens;
  }
  std::vector<double> shares() const {
    const torch::Tensor share = (pairs.to(torch::kFloat64) / pairs.sum().clamp_min(1)).contiguous();
    return {share.data_ptr<double>(), share.data_ptr<double>() + share.numel()};
  }
};

void append_domain(LayerRoutes& routes, const Tally& tally) {
  routes.share.push_back(tally.shares());
  routes.entropy.push_back(tally.entropy / static_cast<double>(tally.tokens));
}

}  // namespace

RoutesReport collect_routes(LanguageModel& model, const std::vector<std::string>& names,
                            const std::vector<std::vector<TokenBatch>>& batches) {
  const auto& layers = model.expert_layers();
  if (layers.empty()) {
    throw UsageError("the model ({}) has no expert layers, so it has no routes",
                     name_of(model.config().architecture));
  }
  if (names.empty() || names.size() != batches.size()) {
    throw UsageError("{} domain names for batches of {} domains", names.size(), batches.size());
  }
  RoutesReport report{.domains = names,
                      .experts = model.config().experts,
                      .experts_per_token = model.config().experts_per_token};
  for (const auto& [index, layer] : layers) report.layers.push_back({.layer = index});
  for (size_t domain = 0; domain < names.size(); ++domain) {
    if (batches[domain].empty()) throw UsageError("domain '{}' has no tokens", names[domain]);
    std::vector<Tally> tallies(layers.size());
    for (const TokenBatch& batch : batches[domain]) {
      model.hidden_states(batch.inputs);
      for (size_t i = 0; i < layers.size(); ++i) {
        tallies[i].add(*layers[i].second, batch.inputs.numel());
      }
      report.tokens += batch.inputs.numel();
    }
    for (size_t i = 0; i < layers.size(); ++i) append_domain(report.layers[i], tallies[i]);
  }
  for (LayerRoutes& routes : report.layers) routes.specialization = mean_distance(routes.share);
  return report;
}

}  // namespace cadre
