#pragma once

/// The merges that are neither of task vectors with thinning (task_arithmetic.h) nor in the span of
/// the inputs by their inner products (span_kernel.h).

#include <memory>
#include <vector>

#include "cadre/reshape/plan.h"
#include "cadre/reshape/task_arithmetic.h"

namespace cadre::reshape {

/// sum of w_i x_i, divided by the sum of w_i when kNormalized.
std::shared_ptr<TileKernel> linear_kernel(std::vector<double> weights, Weights kind);

/// sum of w_i F_i x_i / sum of w_i F_i with per-parameter Fisher information F (Matena and Raffel,
/// "Merging Models with Fisher-Weighted Averaging", 2022, eq. 4): inputs x_1 .. x_n, F_1 .. F_n.
/// Where all F are 0, the weighted mean.
std::shared_ptr<TileKernel> fisher_kernel(std::vector<double> weights);

/// Inputs x, base: values of x where it is within `t` of the base, between them by t / distance
/// beyond (alchemonaut's NearSwap).
std::shared_ptr<TileKernel> nearswap_kernel(double t);

/// Inputs x_1 .. x_n, base. Reinforced Agent Merging (2026): differences above `epsilon` that
/// several models have are averaged, those of one model kept, times 1 + r min(alpha, shared /
/// unique of the model's counts) for the tensor-local "plus" (r > 0).
struct RamOptions {
  double epsilon = 1e-5;
  double r = 0;
  double alpha = 0.2;
};
std::shared_ptr<TileKernel> ram_kernel(int64_t models, const RamOptions& options);

/// Inputs x_1 .. x_n, base. SCE (Wan et al., "FuseChat", 2024): selects the share `top` of places
/// by variance over models, weighs models by their squared selected differences, erases minority
/// signs.
std::shared_ptr<TileKernel> sce_kernel(int64_t models, double top);

/// Inputs x, base. Arcee fusion: takes x where importance |x - base| KL(softmax of the row of x,
/// of base) reaches median + 1.5 (third - first quartile); the quartiles are exact.
std::shared_ptr<TileKernel> fusion_kernel(const std::vector<int64_t>& shape);

}  // namespace cadre::reshape
