#pragma once

/// One product per expert, each over its own number of rows (0 to all), as one parallel
/// computation.
///
/// Rows are sorted by expert: expert e owns rows [offsets[e], offsets[e + 1]). Weights are stacked,
/// W[e] is [n, k] (a linear layer's usual [out, in]). Experts are split into row tiles, largest
/// first, so that both one busy expert and five hundred idle ones keep all cores at work.

#include <cstdint>

namespace cadre::kernels {

/// y[row, n] = x[row, k] * W[e]^T for every row of every expert.
/// offsets [experts + 1], x [rows, k], weights [experts, n, k], y [rows, n] (overwritten).
void grouped_gemm(int64_t experts, const int64_t* offsets, int64_t n, int64_t k, const float* x,
                  const float* weights, float* y);

/// Input gradient: dx[row, k] = dy[row, n] * W[e].
void grouped_gemm_input_grad(int64_t experts, const int64_t* offsets, int64_t n, int64_t k,
                             const float* dy, const float* weights, float* dx);

/// Weight gradient: dw[e][n, k] = sum over e's rows of dy[row]^T x[row]; zero for an expert without
/// rows.
void grouped_gemm_weight_grad(int64_t experts, const int64_t* offsets, int64_t n, int64_t k,
                              const float* dy, const float* x, float* dw);

}  // namespace cadre::kernels
