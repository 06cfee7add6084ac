#pragma once

#include <torch/torch.h>

namespace cadre {

/// Rows of a table: ids [...] int64 in [0, V), weight [V, D]; returns [..., D]. The gradient is a
/// dense [V, D] scatter-add in a fixed order (the same bits every run). Throws UsageError for an id
/// outside the table.
torch::Tensor embedding(const torch::Tensor& ids, const torch::Tensor& weight);

/// Parameter: weight [vocabulary, hidden] ~ N(0, init_std^2).
class EmbeddingImpl : public torch::nn::Module {
 public:
  EmbeddingImpl(int64_t vocabulary, int64_t hidden, double init_std = 0.02);
  torch::Tensor forward(const torch::Tensor& ids);

  torch::Tensor weight;
};
TORCH_MODULE(Embedding);

}  // namespace cadre
