#pragma once

/// A classifier's head whose last layers belong to groups of classes.
///
/// Gao et al., "Knowledge Concentration" (2017), structurally connected layers: after a shared
/// layer every vertical has `private` hidden units of its own, beside `shared` ones of all, and its
/// output units see only those. FC(s1)-SC(s2, x) in the paper; shared = s2 is an ordinary head,
/// shared = 0 their best. Parameters, without biases: s1 x + s1 (s2 - x) M + s2 N.

#include <torch/torch.h>

#include <cstdint>
#include <vector>

namespace cadre {

struct StructuredHeadOptions {
  int64_t in;                    ///< s1
  int64_t hidden;                ///< s2: units that a vertical's classes see
  int64_t shared = 0;            ///< x of them are all verticals'
  std::vector<int64_t> classes;  ///< N_v of each vertical
  double bias = 0;               ///< of the outputs at the start
};

/// Parameters: hidden_weight [x + M (s2 - x), s1] (the shared units first), hidden_bias; a vertical
/// v: out_weight_v [N_v, s2] (shared columns first), out_bias_v.
class StructuredHeadImpl : public torch::nn::Module {
 public:
  /// Weights ~ N(0, 2 / inputs). Throws UsageError for sizes below 1 or shared
  /// outside [0, hidden].
  explicit StructuredHeadImpl(const StructuredHeadOptions& options);
  /// x [T, in]; returns logits [T, N] with ReLU between the layers.
  torch::Tensor forward(const torch::Tensor& x);

  torch::Tensor hidden_weight, hidden_bias;
  std::vector<torch::Tensor> out_weight, out_bias;

 private:
  StructuredHeadOptions options_;
};
TORCH_MODULE(StructuredHead);

}  // namespace cadre
