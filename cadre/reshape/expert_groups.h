#pragma once

/// Which experts of a layer become one, and how much each weighs in it.
///
/// Li et al., "Merge, Then Compress: Demystify Efficient SMoE with Hints from Its Routing Policy"
/// (2024): the most used experts are the groups' centres ("dominant"); every other joins the centre
/// whose router logits behave most like its own; a group's weights are averaged by usage.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace cadre::reshape {

struct ExpertGroups {
  std::vector<int32_t> group_of;  ///< [E]: onto 0 .. M - 1, groups in the order of their dominants
  std::vector<int32_t> dominant;  ///< [M]: the most used expert of each group, rising
  int64_t groups() const { return static_cast<int64_t>(dominant.size()); }
};

/// How many groups each layer gets. `usage` [layers][E] are shares of a layer's choices.
/// kUniform: `average` in each. kAdaptive: one threshold over all layers' usages, each layer's
/// largest raised to 1 so that it keeps at least one; layers with evenly used experts keep more.
/// Values tied at the threshold are left out, so that the sum is at most average * layers.
enum class GroupBudget { kUniform, kAdaptive };
std::vector<int64_t> group_counts(const std::vector<std::vector<double>>& usage, int64_t average,
                                  GroupBudget budget);

/// (cos + 1) / 2 of the columns whose Gram matrix [E, E] is given: router logits, or any features.
/// A column of zeros is like itself only.
std::vector<double> similarity_of_gram(int64_t experts, std::span<const double> gram);

/// Dominants are the `groups` most used experts (ties: the lower); the others, by falling usage,
/// join the dominant most similar to them whose group has room. `capacity` is the most experts of a
/// group, 0 = any number. Throws UsageError when groups is outside [1, E] or the capacity too
/// small.
ExpertGroups group_by_similarity(std::span<const double> usage, std::span<const double> similarity,
                                 int64_t groups, int64_t capacity = 0);

/// The baseline: dominants and members drawn at random.
ExpertGroups group_at_random(std::span<const double> usage, int64_t groups, uint64_t seed);

/// Weights of a group's members, summing to 1. kUsage: as often as they are chosen, all alike when
/// none ever is. kReversed (1 - usage) and kUniform are the paper's ablations; kDominant keeps the
/// most used alone.
enum class MemberWeights { kUsage, kUniform, kReversed, kDominant };
MemberWeights member_weights_named(std::string_view name);
std::vector<double> member_weights(std::span<const double> usage, std::span<const int32_t> members,
                                   MemberWeights kind);

/// The experts of one group, rising.
std::vector<int32_t> members_of(const ExpertGroups& groups, int64_t group);

}  // namespace cadre::reshape
