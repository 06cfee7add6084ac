#include "cadre/reshape/expert_groups.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::reshape {
namespace {

/// Experts by falling usage, the lower first among equals.
std::vector<int32_t> by_usage(std::span<const double> usage) {
  std::vector<int32_t> order(usage.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return usage[static_cast<size_t>(a)] > usage[static_cast<size_t>(b)];
  });
  return order;
}

void check_groups(int64_t groups, size_t experts) {
  if (groups >= 1 && groups <= static_cast<int64_t>(experts)) return;
  throw UsageError("merge: {} experts cannot become {}; choose from 1 to {}", experts, groups,
                   experts);
}

/// Groups numbered by their most used member, rising.
ExpertGroups numbered(std::vector<int32_t> centre_of, std::span<const double> usage) {
  std::vector<int32_t> dominant_of(centre_of.size(), -1);
  for (const int32_t e : by_usage(usage)) {
    int32_t& dominant = dominant_of[static_cast<size_t>(centre_of[static_cast<size_t>(e)])];
    if (dominant < 0) dominant = e;
  }
  ExpertGroups groups;
  for (const int32_t dominant : dominant_of) {
    if (dominant >= 0) groups.dominant.push_back(dominant);
  }
  std::sort(groups.dominant.begin(), groups.dominant.end());
  for (const int32_t centre : centre_of) {
    const int32_t dominant = dominant_of[static_cast<size_t>(centre)];
    const auto at = std::lower_bound(groups.dominant.begin(), groups.dominant.end(), dominant);
    groups.group_of.push_back(static_cast<int32_t>(at - groups.dominant.begin()));
  }
  return groups;
}

}  // namespace

std::vector<int64_t> group_counts(const std::vector<std::vector<double>>& usage, int64_t average,
                                  GroupBudget budget) {
  std::vector<int64_t> counts(usage.size(), average);
  for (const auto& layer : usage) check_groups(average, layer.size());
  if (budget == GroupBudget::kUniform) return counts;
  std::vector<double> all;
  std::vector<std::vector<double>> raised = usage;
  for (auto& layer : raised) {
    *std::max_element(layer.begin(), layer.end()) = 1;
    all.insert(all.end(), layer.begin(), layer.end());
  }
  std::sort(all.begin(), all.end(), std::greater<>());
  const auto kept = static_cast<size_t>(average) * usage.size();
  if (kept >= all.size()) return counts;
  const double threshold = all[kept];
  for (size_t l = 0; l < raised.size(); ++l) {
    counts[l] =
        std::count_if(raised[l].begin(), raised[l].end(), [&](double u) { return u > threshold; });
  }
  return counts;
}

std::vector<double> similarity_of_gram(int64_t experts, std::span<const double> gram) {
  const auto n = static_cast<size_t>(experts);
  std::vector<double> similarity(n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      const double scale = std::sqrt(gram[i * n + i] * gram[j * n + j]);
      const double cosine = i == j ? 1 : scale > 0 ? gram[i * n + j] / scale : 0;
      similarity[i * n + j] = (cosine + 1) / 2;
    }
  }
  return similarity;
}

ExpertGroups group_by_similarity(std::span<const double> usage, std::span<const double> similarity,
                                 int64_t groups, int64_t capacity) {
  check_groups(groups, usage.size());
  const auto experts = static_cast<int64_t>(usage.size());
  if (capacity > 0 && capacity * groups < experts) {
    throw UsageError("merge: {} groups of at most {} experts cannot hold {}", groups, capacity,
                     experts);
  }
  const std::vector<int32_t> order = by_usage(usage);
  const auto centres = std::span(order).first(static_cast<size_t>(groups));
  std::vector<int32_t> centre_of(usage.size());
  std::vector<int64_t> sizes(usage.size(), 0);
  const auto join = [&](int32_t expert, int32_t centre) {
    centre_of[static_cast<size_t>(expert)] = centre;
    ++sizes[static_cast<size_t>(centre)];
  };
  for (const int32_t centre : centres) join(centre, centre);
  for (const int32_t expert : std::span(order).subspan(static_cast<size_t>(groups))) {
    int32_t best = -1;
    const double* row = similarity.data() + static_cast<size_t>(expert) * usage.size();
    for (const int32_t centre : centres) {
      if (capacity > 0 && sizes[static_cast<size_t>(centre)] >= capacity) continue;
      if (best < 0 || row[centre] > row[best]) best = centre;
    }
    join(expert, best);
  }
  return numbered(std::move(centre_of), usage);
}

ExpertGroups group_at_random(std::span<const double> usage, int64_t groups, uint64_t seed) {
  check_groups(groups, usage.size());
  std::vector<int32_t> order(usage.size());
  std::iota(order.begin(), order.end(), 0);
  Random random(seed, {usage.size()});
  std::shuffle(order.begin(), order.end(), random);
  std::vector<int32_t> centre_of(usage.size());
  for (size_t i = 0; i < order.size(); ++i) {
    const auto group = i < static_cast<size_t>(groups)
                           ? i
                           : static_cast<size_t>(random.below(static_cast<uint64_t>(groups)));
    centre_of[static_cast<size_t>(order[i])] = order[group];
  }
  return numbered(std::move(centre_of), usage);
}

MemberWeights member_weights_named(std::string_view name) {
  if (name == "usage") return MemberWeights::kUsage;
  if (name == "uniform") return MemberWeights::kUniform;
  if (name == "reversed") return MemberWeights::kReversed;
  if (name == "dominant") return MemberWeights::kDominant;
  throw UsageError("merge: weights are \"{}\", must be usage, uniform, reversed or dominant", name);
}

std::vector<double> member_weights(std::span<const double> usage, std::span<const int32_t> members,
                                   MemberWeights kind) {
  std::vector<double> weights;
  double total = 0;
  size_t most = 0;
  for (const int32_t e : members) {
    const double u = usage[static_cast<size_t>(e)];
    if (u > usage[static_cast<size_t>(members[most])]) most = weights.size();
    weights.push_back(kind == MemberWeights::kUsage      ? u
                      : kind == MemberWeights::kReversed ? 1 - u
                                                         : 1);
    total += weights.back();
  }
  if (kind == MemberWeights::kDominant) {
    std::fill(weights.begin(), weights.end(), 0);
    weights[most] = total = 1;
  }
  if (total <= 0) {
    std::fill(weights.begin(), weights.end(), 1);
    total = static_cast<double>(weights.size());
  }
  for (double& weight : weights) weight /= total;
  return weights;
}

std::vector<int32_t> members_of(const ExpertGroups& groups, int64_t group) {
  std::vector<int32_t> members;
  for (size_t e = 0; e < groups.group_of.size(); ++e) {
    if (groups.group_of[e] == group) members.push_back(static_cast<int32_t>(e));
  }
  return members;
}

}  // namespace cadre::reshape
