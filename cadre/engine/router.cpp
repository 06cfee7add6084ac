#include "cadre/engine/router.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "cadre/engine/vector_math.h"
#include "cadre/kernels/top_k.h"

namespace cadre::engine {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();
/// Keeps the sum of selected sigmoids off zero; far below the smallest score that matters.
constexpr float kTiny = 1e-20F;
/// SparseMixer's jitter (Liu et al., "Sparse Backpropagation for MoE Training", 2023), as
/// Phi-3.5-MoE was published.
constexpr float kJitter = 0.01F;

/// Index of the largest, the first of equals.
int64_t best_of(const float* x, int64_t n) { return std::max_element(x, x + n) - x; }

/// Takes the k largest out of scores, which become -inf.
void take_best(float* scores, int64_t n, int64_t k, int32_t* ids) {
  for (int64_t j = 0; j < k; ++j) {
    ids[j] = static_cast<int32_t>(best_of(scores, n));
    scores[ids[j]] = kLowest;
  }
}

}  // namespace

Router::Router(const RouterSpec& spec, int64_t experts, std::vector<float> bias)
    : spec_(spec), experts_(experts), bias_(std::move(bias)) {
  // Probabilities divided by the sum of the chosen are the softmax of the chosen: computed so, no
  // bit of a weight depends on experts that were not chosen, and one may be pruned without a trace.
  if (spec_.gating == Gating::kSoftmax && spec_.normalize && spec_.nulls == 0 && bias_.empty() &&
      spec_.selection == Selection::kTopK)
    spec_.gating = Gating::kSoftmaxOfSelected;
}

/// A group's score is its best expert's (DeepSeek-V2), with a bias the sum of its two best (V3).
void Router::limit_to_groups(float* scores) const {
  const int64_t size = experts_ / spec_.groups;
  const int64_t best = bias_.empty() ? 1 : std::min<int64_t>(2, size);
  std::vector<float> sums, sorted;
  for (int64_t g = 0; g < spec_.groups; ++g) {
    sorted.assign(scores + g * size, scores + (g + 1) * size);
    std::partial_sort(sorted.begin(), sorted.begin() + best, sorted.end(), std::greater<>());
    sums.push_back(best == 1 ? sorted[0] : sorted[0] + sorted[1]);
  }
  std::vector<int32_t> used(static_cast<size_t>(spec_.groups_used));
  take_best(sums.data(), spec_.groups, spec_.groups_used, used.data());
  for (int64_t g = 0; g < spec_.groups; ++g) {
    if (std::find(used.begin(), used.end(), g) != used.end()) continue;
    std::fill_n(scores + g * size, size, kLowest);
  }
}

/// Each expert in turn: the best of what is left, weighted by a softmax over the logits that lie
/// within 2 kJitter of it, relative to their size.
void Router::sparse_mixer(int64_t k, float* logits, int32_t* experts, float* weights) const {
  std::vector<float> near;
  for (int64_t j = 0; j < k; ++j) {
    const int64_t best = best_of(logits, experts_);
    const float most = logits[best];
    near.assign(1, most);
    for (int64_t e = 0; e < experts_; ++e) {
      if (e == best || logits[e] == kLowest) continue;
      const float size = std::max(std::fabs(logits[e]), most);
      if (!((most - logits[e]) / size > 2 * kJitter)) near.push_back(logits[e]);
    }
    softmax(near.data(), static_cast<int64_t>(near.size()));
    experts[j] = static_cast<int32_t>(best);
    weights[j] = near[0];
    logits[best] = kLowest;
  }
}

/// The ids chosen, best first; returns their number.
int64_t Router::select(const RouteChoice& choice, const float* scores, int32_t* ids) const {
  if (spec_.selection == Selection::kPrefix) return select_prefix(choice, scores, ids);
  std::vector<float> left(scores, scores + columns());
  if (!bias_.empty()) add(bias_.data(), experts_, left.data());
  if (spec_.groups_used < spec_.groups) limit_to_groups(left.data());
  take_best(left.data(), columns(), choice.k, ids);
  return choice.k;
}

int64_t Router::select_prefix(const RouteChoice& choice, const float* probs, int32_t* ids) const {
  std::vector<int32_t> prefix(static_cast<size_t>(columns()));
  int64_t count = 0;
  kernels::top_p(probs, 1, columns(), choice.top_p.value_or(spec_.p), prefix.data(), &count);
  count = std::min(count, choice.k);
  std::copy_n(prefix.begin(), count, ids);
  return count;
}

/// Moves the true experts to the front; returns their number.
int64_t Router::drop_nulls(int64_t count, int32_t* ids, float* weights) const {
  int64_t kept = 0;
  for (int64_t j = 0; j < count; ++j) {
    if (ids[j] >= experts_) continue;
    ids[kept] = ids[j];
    weights[kept++] = weights[j];
  }
  return kept;
}

void Router::choose(const RouteChoice& choice, float* logits, int32_t* experts,
                    float* weights) const {
  const int64_t k = choice.k;
  if (spec_.gating == Gating::kSparseMixer) return sparse_mixer(k, logits, experts, weights);
  for (int64_t e = experts_; e < columns(); ++e) logits[e] += choice.null_bias;
  if (spec_.gating == Gating::kSoftmax) softmax(logits, columns());
  if (spec_.gating == Gating::kSigmoid) sigmoid(logits, columns());
  int64_t kept = select(choice, logits, experts);
  for (int64_t j = 0; j < kept; ++j) weights[j] = logits[experts[j]];
  if (spec_.gating == Gating::kSoftmaxOfSelected) softmax(weights, kept);
  float total = 0;
  if (!spec_.keeps_nulls_share) kept = drop_nulls(kept, experts, weights);
  for (int64_t j = 0; j < kept; ++j) total += weights[j];
  if (spec_.keeps_nulls_share) kept = drop_nulls(kept, experts, weights);

  if (choice.top_p && spec_.selection == Selection::kTopK && kept > 0) {
    const int64_t most = kept;
    float sum = weights[0];
    for (kept = 1; kept < most && sum < *choice.top_p * total; ++kept) sum += weights[kept];
    total = spec_.normalize ? sum : total;
  }
  const float factor = spec_.scale / (spec_.normalize ? total + kTiny : 1.0F);
  for (int64_t j = 0; j < kept; ++j) weights[j] *= factor;
  std::fill(experts + kept, experts + k, -1);
  std::fill(weights + kept, weights + k, 0.0F);
}

}  // namespace cadre::engine
