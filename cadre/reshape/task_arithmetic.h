#pragma once

/// Merges of task vectors: base + lambda * mix of weighted, thinned differences from the base.
///   task_arithmetic  Ilharco et al., "Editing Models with Task Arithmetic", 2023
///   ties             Yadav et al., "TIES-Merging", 2023: largest kept, majority sign elected
///   dare             Yu et al., "Language Models are Super Mario", 2024: random ones kept
///   breadcrumbs      Davari and Belilovsky, "Model Breadcrumbs", 2023: outliers dropped, too
///   della            Deep et al., "DELLA-Merging", 2024: kept at random, the likelier the larger
/// Settings have mergekit's names and meaning. Where its torch code leaves the choice among equal
/// magnitudes to the sort, the lower index is kept here; its random masks are ours (by seed).

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "cadre/reshape/plan.h"

namespace cadre::reshape {

enum class Sparsify { kNone, kMagnitude, kRandom, kOutliers, kDella };
enum class Consensus { kNone, kSum, kCount };
/// What is kept equal when values are dropped: the norm of the task vector (mergekit), or its
/// expectation (kDensity: 1 / density, the papers' choice).
enum class Rescale { kNone, kL1, kL2, kLinf, kDensity };
Rescale rescale_named(std::string_view name);

struct TaskVector {
  double weight = 1;
  double density = 1;     ///< share of values kept, in [0, 1]
  double gamma = 0.01;    ///< kOutliers: share of the largest dropped first
  double epsilon = 0.15;  ///< kDella: densities of a row run from density - epsilon to + epsilon
};

enum class Weights { kAsGiven, kNormalized };

struct TaskArithmeticOptions {
  std::vector<TaskVector> models;  ///< the inputs but the last, which is the base
  Sparsify sparsify = Sparsify::kNone;
  Consensus consensus = Consensus::kNone;
  Weights weights = Weights::kAsGiven;  ///< kNormalized: divided by the weights that took part
  Rescale rescale = Rescale::kNone;
  double lambda = 1;
  uint64_t seed = 0;  ///< of masks; give each tensor its own
  std::vector<int64_t> shape;
};

/// Throws UsageError for a density, gamma or epsilon out of range.
std::shared_ptr<TileKernel> task_arithmetic_kernel(TaskArithmeticOptions options);
int64_t task_arithmetic_scratch(const TaskArithmeticOptions& options);

}  // namespace cadre::reshape
