#pragma once

/// AdamW over a model's parameters with gradient clipping, on cadre's one-pass kernel.

#include <torch/torch.h>

#include <string>
#include <utility>
#include <vector>

namespace cadre {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;  ///< matrices only: vectors (norms, biases) are not decayed
  double clip_norm = 1.0;     ///< global gradient norm; 0 = no clipping
};

class AdamW {
 public:
  AdamW(std::vector<std::pair<std::string, torch::Tensor>> parameters, const AdamWOptions& options);

  /// One update from the parameters' gradients times grad_scale (1 / accumulated micro-batches), which
  /// are freed. Returns the gradient norm before clipping. Throws Error naming the tensor when a gradient is not finite; nothing is updated then.
  double step(double lr, double grad_scale = 1.0);

  int64_t steps() const { return steps_; }
  /// Moments under "exp_avg.NAME" and "exp_avg_sq.NAME", for checkpoints; restore() takes the same and the step count.
  std::vector<std::pair<std::string, torch::Tensor>> state() const;
  void restore(int64_t steps, const std::vector<std::pair<std::string, torch::Tensor>>& state);

 private:
  std::vector<std::pair<std::string, torch::Tensor>> parameters_;
  std::vector<torch::Tensor> exp_avg_, exp_avg_sq_;
  AdamWOptions options_;
  int64_t steps_ = 0;
};

/// Linear warm-up, then cosine from lr to lr * final_share at total_steps. `step` counts from 0.
struct CosineSchedule {
  double lr = 1e-3;
  int64_t warmup_steps = 50;
  int64_t total_steps = 1000;
  double final_share = 0.1;
  double at(int64_t step) const;
};

}  // namespace cadre
