#pragma once

/// Linear layers on cadre's GEMM: LibTorch's own product runs on a BLAS that is 5x slower here.

#include <torch/torch.h>

#include <vector>

namespace cadre {

/// y = x W^T (+ bias), differentiable. x [..., in], weight [out, in], bias [out] or undefined; y
/// [..., out]. fp32 only; throws UsageError on a shape or dtype that does not fit.
torch::Tensor linear(const torch::Tensor& x, const torch::Tensor& weight,
                     const torch::Tensor& bias = {});

/// Several products of one x: y_i = x W_i^T, weights [out_i, in]. As one differentiable function,
/// so that the gradient of x accumulates inside the GEMM and not in a pass of its own per product.
std::vector<torch::Tensor> linears(const torch::Tensor& x,
                                   const std::vector<torch::Tensor>& weights);

struct LinearOptions {
  int64_t in;
  int64_t out;
  enum class Bias { kNone, kZero } bias = Bias::kNone;
  double init_std = 0.02;  ///< weights ~ N(0, init_std^2)
};

/// Parameters: weight [out, in], bias [out].
class LinearImpl : public torch::nn::Module {
 public:
  explicit LinearImpl(const LinearOptions& options);
  torch::Tensor forward(const torch::Tensor& x);

  torch::Tensor weight, bias;
};
TORCH_MODULE(Linear);

}  // namespace cadre
