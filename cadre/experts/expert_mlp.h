#pragma once

/// Experts of the classic kind, two layers with bias, whose output may be of another width than
/// their input:
///   y_t = sum over t's pairs of weight * (W_down[e] f(W_up[e] x_t + b_up[e]) + b_down[e]).
/// (Shazeer et al., "Outrageously Large Neural Networks", 2017.) Made of several differentiable
/// steps: for small experiments; language models have the fused expert_ffn().

#include <torch/torch.h>

#include "cadre/routing/routing.h"

namespace cadre {

/// y[row] = W[e] x[row] for rows sorted by expert, expert e owning [offsets[e], offsets[e + 1]).
/// x [rows, in], offsets [E + 1] int64, weight [E, out, in]; returns [rows, out]. Differentiable
/// (once). Throws UsageError for shapes that do not fit.
torch::Tensor grouped_linear(const torch::Tensor& x, const torch::Tensor& offsets,
                             const torch::Tensor& weight);

enum class Activation { kGelu, kRelu };

/// f(x), GELU in its tanh form.
torch::Tensor activate(const torch::Tensor& x, Activation activation);

struct ExpertMlpOptions {
  int64_t in;       ///< D
  int64_t inner;    ///< H of one expert
  int64_t out;      ///< width of y
  int64_t experts;  ///< E
  Activation activation = Activation::kGelu;
};

/// Parameters: up [E, H, D], up_bias [E, H], down [E, out, H], down_bias [E, out]; all uniform
/// within +-1 / sqrt(inputs), as LibTorch's linear layers.
class ExpertMlp : public torch::nn::Module {
 public:
  /// Throws UsageError for sizes below 1.
  explicit ExpertMlp(const ExpertMlpOptions& options);

  /// x [T, D]; returns [T, out], zeros for a token without experts. Throws UsageError for shapes
  /// that do not fit.
  torch::Tensor forward(const torch::Tensor& x, const Routing& routing);

  const ExpertMlpOptions& options() const { return options_; }
  torch::Tensor up, up_bias, down, down_bias;

 private:
  ExpertMlpOptions options_;
};

}  // namespace cadre
