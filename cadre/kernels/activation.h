#pragma once

/// Activation functions with gradients: one pass over memory, vectorised and split over the team.

#include <cstdint>

namespace cadre::kernels {

/// SwiGLU's activation (Shazeer, "GLU Variants Improve Transformer", 2020): y = silu(gate) * up,
/// where gate_up [rows, 2n] holds the gate product, then the up product; y [rows, n].
void silu_mul(const float* gate_up, int64_t rows, int64_t n, float* y);
/// dgate_up [rows, 2n] from dy [rows, n]; dgate_up may be gate_up itself.
void silu_mul_backward(const float* gate_up, const float* dy, int64_t rows, int64_t n,
                       float* dgate_up);

/// GELU, tanh form (Hendrycks & Gimpel, "Gaussian Error Linear Units", 2016).
void gelu(const float* x, int64_t n, float* y);
/// dx from dy, both [n].
void gelu_backward(const float* x, const float* dy, int64_t n, float* dx);

}  // namespace cadre::kernels
