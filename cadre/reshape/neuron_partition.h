#pragma once

/// How a dense feed-forward layer's neurons are dealt out to experts.
///
/// Zhao et al., "FactorLLM: Factorizing Knowledge via Mixture of Experts for Large Language Models"
/// (2024): equal slices; whatever the order of the neurons, the slices' outputs sum to the dense
/// layer's. Cai et al., "Read-ME: Refactorizing LLMs as Router-Decoupled Mixture of Experts"
/// (2024): one mask of the most active neurons a domain; experts overlap, and what all share can
/// stand apart.

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace cadre::reshape {

/// Expert e owns neurons order[e * H / E .. (e + 1) * H / E), rising within an expert.
struct NeuronPartition {
  std::vector<int32_t> order;  ///< [H], a permutation
  int64_t experts = 1;
  std::span<const int32_t> of(int64_t expert) const {
    const size_t size = order.size() / static_cast<size_t>(experts);
    return std::span(order).subspan(static_cast<size_t>(expert) * size, size);
  }
};

/// All three throw UsageError unless `experts` divides `neurons`.
NeuronPartition partition_contiguous(int64_t neurons, int64_t experts);
NeuronPartition partition_random(int64_t neurons, int64_t experts, uint64_t seed);
/// k-means with clusters of equal size on the rows of `features` [neurons, width], scaled to length
/// 1 (gate rows: neurons that open together; activations: neurons that work together). Centres
/// begin far apart (k-means++); each round deals neurons out, those first that lose most by their
/// second choice, then exchanges pairs while both gain. At most `rounds`.
NeuronPartition partition_kmeans(int64_t neurons, int64_t width, const float* features,
                                 int64_t experts, uint64_t seed, int64_t rounds = 20);

/// A set of neurons per domain and what all of them share.
struct DomainMasks {
  std::vector<std::vector<int32_t>> specific;  ///< [domains], without the shared, rising
  std::vector<int32_t> shared;                 ///< rising
};

/// Each domain keeps exactly floor(rate H) neurons with the largest activity [domains, neurons]
/// (the lower first among equals; the paper's strict threshold loses one, and more with ties).
/// Throws UsageError unless 0 < rate <= 1.
DomainMasks mask_by_activity(int64_t domains, int64_t neurons, const double* activity, double rate);

}  // namespace cadre::reshape
