#include "cadre/training/hash_tables.h"

#include <algorithm>
#include <cmath>

#include "cadre/routing/hash_router.h"

namespace cadre {
namespace {

/// Occurrences of a billion drawn tokens: as whole numbers, fine enough for the rarest id.
constexpr double kDrawn = 1e9;

std::vector<int64_t> frequencies(const TokenBatches& data, int64_t vocabulary) {
  std::vector<double> expected(vocabulary);
  for (size_t i = 0; i < data.domains().size(); ++i) {
    const TokenFile& tokens = *data.domains()[i].train;
    std::vector<int64_t> count(vocabulary);
    for (int64_t t = 0; t < tokens.size(); ++t) ++count[tokens[t]];
    const double each = kDrawn * data.shares()[i] / static_cast<double>(tokens.size());
    for (int64_t id = 0; id < vocabulary; ++id) {
      expected[id] += each * static_cast<double>(count[id]);
    }
  }
  std::vector<int64_t> rounded(vocabulary);
  std::transform(expected.begin(), expected.end(), rounded.begin(),
                 [](double n) { return std::llround(n); });
  return rounded;
}

}  // namespace

void balance_hash_tables(LanguageModel& model, const TokenBatches& data) {
  if (model.config().router.kind != "hash") return;
  Hash options = {.vocabulary = model.config().vocabulary};
  options.frequencies = frequencies(data, options.vocabulary);
  for (const auto& [index, layer] : model.expert_layers()) {
    options.seed = static_cast<uint64_t>(index);
    if (auto* router = dynamic_cast<HashRouter*>(layer->gate.get())) router->assign(options);
  }
}

}  // namespace cadre
