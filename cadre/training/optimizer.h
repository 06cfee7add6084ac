#pragma once

/// AdamW over a model's parameters with gradient clipping, on cadre's one-pass kernel.

#include <torch/torch.h>

#include <vector>

#include "cadre/training/tensor_file.h"

namespace cadre {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;  ///< matrices only: vectors (norms, biases) are not decayed
  double clip_norm = 1.0;     ///< global gradient norm; 0 = no clipping
};

class AdamW {
 public:
  /// Dense fp32 parameters under their names. Throws UsageError for options out of range.
  AdamW(NamedTensors parameters, const AdamWOptions& options);

  /// One update from the parameters' gradients times grad_scale (1 / accumulated micro-batches),
  /// which are freed. Returns the gradient norm before clipping. Throws Error naming the tensor
  /// when a gradient is not finite; nothing is updated then.
  double step(double lr, double grad_scale = 1.0);

  int64_t steps() const { return steps_; }
  /// Moments under "exp_avg.NAME" and "exp_avg_sq.NAME", for checkpoints: not copies. To resume,
  /// fill them and say how many steps they have seen.
  NamedTensors state() const;
  void resume_at(int64_t steps) { steps_ = steps; }

 private:
  double gradient_norm(double grad_scale) const;

  NamedTensors parameters_;
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
