#pragma once

/// Optimiser updates in one pass over memory.

#include <cstdint>

namespace cadre::kernels {

/// AdamW (Loshchilov & Hutter, "Decoupled Weight Decay Regularization", 2019).
struct AdamWStep {
  float lr;
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f;
  float weight_decay = 0.1f;
  float grad_scale = 1.0f;  ///< multiplies the gradient first (clipping, accumulation)
  int64_t step = 1;         ///< 1 for the first update: bias correction
};

/// Updates parameter, exp_avg and exp_avg_sq, each [n], in place.
void adamw(const AdamWStep& step, int64_t n, float* parameter, const float* grad, float* exp_avg,
           float* exp_avg_sq);

/// Sum of squares in double, the same for any number of threads. NaN and infinity come through.
double sum_of_squares(const float* x, int64_t n);

}  // namespace cadre::kernels
