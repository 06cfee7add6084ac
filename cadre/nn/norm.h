#pragma once

#include <torch/torch.h>

namespace cadre {

/// RMSNorm (Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019):
/// y = x / sqrt(mean(x^2) + eps) * weight over the last dimension. x [..., D], weight [D].
torch::Tensor rms_norm(const torch::Tensor& x, const torch::Tensor& weight, double eps);

/// LayerNorm (Ba et al., "Layer Normalization", 2016). x [..., D], weight [D], bias [D].
torch::Tensor layer_norm(const torch::Tensor& x, const torch::Tensor& weight,
                         const torch::Tensor& bias, double eps);

/// Parameter: weight [hidden], ones.
class RmsNormImpl : public torch::nn::Module {
 public:
  explicit RmsNormImpl(int64_t hidden, double eps = 1e-6);
  torch::Tensor forward(const torch::Tensor& x);

  torch::Tensor weight;

 private:
  double eps_;
};
TORCH_MODULE(RmsNorm);

/// Parameters: weight [hidden], ones; bias [hidden], zeros.
class LayerNormImpl : public torch::nn::Module {
 public:
  explicit LayerNormImpl(int64_t hidden, double eps = 1e-5);
  torch::Tensor forward(const torch::Tensor& x);

  torch::Tensor weight, bias;

 private:
  double eps_;
};
TORCH_MODULE(LayerNorm);

}  // namespace cadre
