#pragma once

/// Transport plans as differentiable torch functions: the solvers of transport/ with tensors in and
/// out. Gradients are those of the converged plan, by the implicit function theorem; nothing of the
/// iterations is kept.

#include <torch/torch.h>

#include "cadre/routing/transport/sinkhorn.h"
#include "cadre/routing/transport/sparse.h"

namespace cadre {

/// cost [m, n], supply [m], demand [n] of any real type -> T [m, n], of cost's type. The solvers
/// work in double; demand is scaled to supply's total when they differ by rounding. Throws
/// UsageError as the solvers do.
torch::Tensor entropic_plan(const torch::Tensor& cost, const torch::Tensor& supply,
                            const torch::Tensor& demand, const transport::Entropic& options = {});

/// As entropic_plan(). The gradient takes the plan's support as fixed; of a plan that has not
/// converged it is that of the nearest problem which the plan does solve.
torch::Tensor sparse_plan(const torch::Tensor& cost, const torch::Tensor& supply,
                          const torch::Tensor& demand, const transport::Sparse& options = {});

/// The tensors as a problem in double, without gradients. Throws UsageError for shapes that do not
/// fit.
transport::Problem problem_of(const torch::Tensor& cost, const torch::Tensor& supply,
                              const torch::Tensor& demand);

}  // namespace cadre
