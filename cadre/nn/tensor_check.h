#pragma once

#include <torch/torch.h>

#include <string>
#include <string_view>

namespace cadre {

/// "[2, 3] Float", for messages.
std::string describe(const torch::Tensor& x);

/// Refuses what the kernels cannot read: throws UsageError unless `x` is defined, fp32 and on the
/// CPU.
void check_fp32(const torch::Tensor& x, std::string_view name);

/// `x` as the kernels want it: checked as above and dense. Copies (differentiably) only when it has
/// to.
torch::Tensor dense_fp32(const torch::Tensor& x, std::string_view name);

/// Uninitialised, shaped like `x` but for the last dimension.
torch::Tensor empty_rows(const torch::Tensor& x, int64_t width);

/// `ids` as dense int64, each in [0, limit) or equal to `ignored`. Throws UsageError and names the
/// culprit.
torch::Tensor dense_ids(const torch::Tensor& ids, int64_t limit, std::string_view name,
                        int64_t ignored = 0);

/// Makes OpenMP's team of this thread what cadre::set_num_threads() says, for oneDNN and LibTorch
/// alike. Called by every function that multiplies: Debian's LibTorch takes one thread for its
/// default, and its first parallel operation would leave all GEMMs after it on one core.
void join_team();

/// True when autograd will ask for the gradient of a function of these tensors.
template <typename... Tensors>
bool needs_gradient(const Tensors&... tensors) {
  return torch::GradMode::is_enabled() && (tensors.requires_grad() || ...);
}

}  // namespace cadre
