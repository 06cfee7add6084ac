#include "cadre/training/routes.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

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

std::vector<double> shares_of(const torch::Tensor& pairs) {
  const torch::Tensor share = (pairs.to(torch::kFloat64) / pairs.sum().clamp_min(1)).contiguous();
  return {share.data_ptr<double>(), share.data_ptr<double>() + share.numel()};
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
  double mean_k() const {
    return static_cast<double>(pairs.sum().item<int64_t>()) / static_cast<double>(tokens);
  }
};

/// Adds the batch's pairs by the class of their token to `pairs` [classes].
void count_classes(const Routing& routing, const torch::Tensor& ids, const TokenClasses& classes,
                   std::vector<double>& pairs) {
  const torch::Tensor flat = ids.reshape(-1).contiguous();
  const int64_t* id = flat.data_ptr<int64_t>();
  const int64_t* offset = routing.offsets.data_ptr<int64_t>();
  for (int64_t t = 0; t < routing.tokens(); ++t) {
    const auto cls = static_cast<size_t>(classes.of_token.at(static_cast<size_t>(id[t])));
    pairs[cls] += static_cast<double>(offset[t + 1] - offset[t]);
  }
}

void count_tokens(const torch::Tensor& ids, const TokenClasses& classes,
                  std::vector<int64_t>& tokens) {
  const torch::Tensor flat = ids.reshape(-1).contiguous();
  for (int64_t t = 0; t < flat.size(0); ++t) {
    ++tokens[static_cast<size_t>(
        classes.of_token.at(static_cast<size_t>(flat.data_ptr<int64_t>()[t])))];
  }
}

void append_domain(LayerRoutes& routes, const Tally& tally) {
  routes.share.push_back(shares_of(tally.pairs));
  routes.mean_k.push_back(tally.mean_k());
  routes.entropy.push_back(tally.entropy / static_cast<double>(tally.tokens));
}

/// Common experts of a token over those of either; 1 when neither has any.
double overlap_of(const Routing& a, const Routing& b, int64_t token) {
  const auto set_of = [token](const Routing& routing) {
    const int64_t* offset = routing.offsets.data_ptr<int64_t>();
    const int32_t* expert = routing.expert.data_ptr<int32_t>();
    return std::set<int32_t>(expert + offset[token], expert + offset[token + 1]);
  };
  const std::set<int32_t> first = set_of(a), second = set_of(b);
  std::vector<int32_t> both;
  std::set_intersection(first.begin(), first.end(), second.begin(), second.end(),
                        std::back_inserter(both));
  const size_t either = first.size() + second.size() - both.size();
  return either == 0 ? 1 : static_cast<double>(both.size()) / static_cast<double>(either);
}

void check_comparable(LanguageModel& model, LanguageModel& other) {
  const auto layers_of = [](LanguageModel& m) {
    std::vector<int64_t> layers;
    for (const auto& [index, layer] : m.expert_layers()) layers.push_back(index);
    return layers;
  };
  if (layers_of(model).empty() || layers_of(model) != layers_of(other) ||
      model.config().experts != other.config().experts) {
    throw UsageError(
        "the two models cannot be compared: {} layers of {} experts, the other has {} of {}",
        layers_of(model).size(), model.config().experts, layers_of(other).size(),
        other.config().experts);
  }
}

}  // namespace

std::vector<LayerDifference> compare_routes(LanguageModel& model, LanguageModel& other,
                                            const std::vector<std::vector<TokenBatch>>& batches) {
  check_comparable(model, other);
  const size_t layers = model.expert_layers().size();
  std::vector<LayerDifference> differences(layers);
  std::vector<Tally> mine(layers), theirs(layers);
  for (const auto& domain : batches) {
    for (const TokenBatch& batch : domain) {
      model.hidden_states(batch.inputs);
      other.hidden_states(batch.inputs);
      const int64_t tokens = batch.inputs.numel();
      for (size_t i = 0; i < layers; ++i) {
        const ExpertLayer &a = *model.expert_layers()[i].second,
                          &b = *other.expert_layers()[i].second;
        mine[i].add(a, tokens);
        theirs[i].add(b, tokens);
        for (int64_t t = 0; t < tokens; ++t) {
          differences[i].overlap += overlap_of(a.last_routing(), b.last_routing(), t);
        }
      }
    }
  }
  for (size_t i = 0; i < layers; ++i) {
    if (mine[i].tokens == 0) throw UsageError("there are no tokens to compare the models on");
    LayerDifference& difference = differences[i];
    difference.layer = model.expert_layers()[i].first;
    difference.overlap /= static_cast<double>(mine[i].tokens);
    difference.load_distance =
        total_variation(shares_of(mine[i].pairs), shares_of(theirs[i].pairs));
    difference.mean_k = mine[i].mean_k();
    difference.other_mean_k = theirs[i].mean_k();
  }
  return differences;
}

RoutesReport collect_routes(LanguageModel& model, const std::vector<std::string>& names,
                            const std::vector<std::vector<TokenBatch>>& batches,
                            const TokenClasses& classes) {
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
                      .experts_per_token = model.config().experts_per_token,
                      .classes = classes.names};
  report.class_tokens.resize(classes.names.size());
  for (const auto& [index, layer] : layers) {
    report.layers.push_back({.layer = index, .class_k = std::vector<double>(classes.names.size())});
  }
  for (size_t domain = 0; domain < names.size(); ++domain) {
    if (batches[domain].empty()) throw UsageError("domain '{}' has no tokens", names[domain]);
    std::vector<Tally> tallies(layers.size());
    for (const TokenBatch& batch : batches[domain]) {
      model.hidden_states(batch.inputs);
      for (size_t i = 0; i < layers.size(); ++i) {
        tallies[i].add(*layers[i].second, batch.inputs.numel());
        if (classes.names.empty()) continue;
        count_classes(layers[i].second->last_routing(), batch.inputs, classes,
                      report.layers[i].class_k);
      }
      if (!classes.names.empty()) count_tokens(batch.inputs, classes, report.class_tokens);
      report.tokens += batch.inputs.numel();
    }
    for (size_t i = 0; i < layers.size(); ++i) append_domain(report.layers[i], tallies[i]);
  }
  for (LayerRoutes& routes : report.layers) {
    routes.specialization = mean_distance(routes.share);
    for (size_t c = 0; c < routes.class_k.size(); ++c) {
      routes.class_k[c] /= static_cast<double>(std::max<int64_t>(report.class_tokens[c], 1));
    }
  }
  return report;
}

}  // namespace cadre
