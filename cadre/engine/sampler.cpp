#include "cadre/engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::engine {
namespace {

void check(const SamplerOptions& o) {
  const auto require = [](bool fits, const char* name, double value, const char* range) {
    if (!fits) throw UsageError("{} is {}, must be {}", name, value, range);
  };
  require(o.repeat_penalty > 0 && std::isfinite(o.repeat_penalty), "repeat-penalty",
          o.repeat_penalty, "above 0");
  require(o.repeat_window >= 0, "repeat-window", static_cast<double>(o.repeat_window),
          "at least 0");
  require(o.temperature >= 0 && std::isfinite(o.temperature), "temperature", o.temperature,
          "at least 0");
  require(o.top_k >= 0, "top-k", static_cast<double>(o.top_k), "at least 0");
  require(o.top_p > 0 && o.top_p <= 1, "top-p", o.top_p, "above 0 and at most 1");
  require(o.min_p >= 0 && o.min_p <= 1, "min-p", o.min_p, "from 0 to 1");
}

/// Tokens in falling order of their logits, as many as were asked for so far: nobody sorts a
/// vocabulary of 150,000 to draw from its first 20.
class Ranking {
 public:
  explicit Ranking(std::span<const float> logits) : logits_(logits), ids_(logits.size()) {
    std::iota(ids_.begin(), ids_.end(), 0);
  }
  size_t size() const { return ids_.size(); }
  TokenId operator[](size_t rank) {
    while (rank >= sorted_) sort_more();
    return ids_[rank];
  }

 private:
  void sort_more() {
    const size_t end = std::min(ids_.size(), std::max<size_t>(64, sorted_ * 8));
    const auto before = [this](TokenId a, TokenId b) {
      return logits_[a] != logits_[b] ? logits_[a] > logits_[b] : a < b;
    };
    const auto at = [this](size_t i) { return ids_.begin() + static_cast<std::ptrdiff_t>(i); };
    std::partial_sort(at(sorted_), at(end), ids_.end(), before);
    sorted_ = end;
  }

  std::span<const float> logits_;
  std::vector<TokenId> ids_;
  size_t sorted_ = 0;
};

}  // namespace

Sampler::Sampler(const SamplerOptions& options) : options_(options) { check(options); }

std::vector<float> Sampler::penalised(std::span<const float> logits,
                                      std::span<const TokenId> context) const {
  const auto window = static_cast<size_t>(options_.repeat_window);
  if (window > 0 && context.size() > window) context = context.last(window);
  std::vector<float> result(logits.begin(), logits.end());
  for (const TokenId id : std::set<TokenId>(context.begin(), context.end())) {
    if (id < 0 || static_cast<size_t>(id) >= result.size()) continue;
    float& logit = result[static_cast<size_t>(id)];
    const auto penalty = static_cast<float>(options_.repeat_penalty);
    logit = logit > 0 ? logit / penalty : logit * penalty;
  }
  return result;
}

TokenId Sampler::draw(std::span<const float> logits, std::span<const TokenId> context) const {
  if (logits.empty()) throw UsageError("there are no logits to draw from");
  if (!std::ranges::all_of(logits, [](float logit) { return std::isfinite(logit); })) {
    throw Error("the model's logits are not finite");
  }
  std::vector<float> changed;
  if (options_.repeat_penalty != 1.0) logits = changed = penalised(logits, context);
  const auto best = std::ranges::max_element(logits);
  if (options_.temperature == 0) return static_cast<TokenId>(best - logits.begin());

  const auto weight = [&](TokenId id) {
    return std::exp((static_cast<double>(logits[id]) - *best) / options_.temperature);
  };
  Ranking ranking(logits);
  const size_t most = options_.top_k == 0
                          ? ranking.size()
                          : std::min<size_t>(static_cast<size_t>(options_.top_k), ranking.size());
  double total = 0;
  for (size_t rank = 0; rank < most; ++rank) {
    total += weight(most == ranking.size() ? static_cast<TokenId>(rank) : ranking[rank]);
  }
  // The kept ones: a prefix of the ranking, the likeliest always among them.
  std::vector<double> kept;
  double sum = 0;
  while (kept.size() < most && (kept.empty() || sum < options_.top_p * total)) {
    const double next = weight(ranking[kept.size()]);
    if (next < options_.min_p) break;
    kept.push_back(next);
    sum += next;
  }
  double left = static_cast<double>(Random(options_.seed, {context.size()}).uniform()) * sum;
  size_t chosen = 0;
  while (chosen + 1 < kept.size() && left >= kept[chosen]) left -= kept[chosen++];
  return ranking[chosen];
}

}  // namespace cadre::engine
