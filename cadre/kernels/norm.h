#pragma once

/// Normalisation of rows with gradients, vectorised and split over the team by rows. Matrices are
/// row-major and dense. The weight gradients are summed over fixed row chunks in order: the same
/// bits for any number of threads.

#include <cstdint>

namespace cadre::kernels {

/// RMSNorm (Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019):
/// y = x / sqrt(mean(x^2) + eps) * weight. x, y [rows, n], weight [n]; inverse_rms [rows] is kept
/// for backward.
void rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t n, float* y,
              float* inverse_rms);
/// dx [rows, n] and dweight [n], both overwritten.
void rms_norm_backward(const float* x, const float* weight, const float* inverse_rms,
                       const float* dy, int64_t rows, int64_t n, float* dx, float* dweight);

/// LayerNorm (Ba et al., "Layer Normalization", 2016): y = (x - mean) / sqrt(var + eps) * weight +
/// bias. mean and inverse_std [rows] are kept for backward.
void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t rows,
                int64_t n, float* y, float* mean, float* inverse_std);
/// dx [rows, n], dweight [n] and dbias [n], all overwritten.
void layer_norm_backward(const float* x, const float* weight, const float* mean,
                         const float* inverse_std, const float* dy, int64_t rows, int64_t n,
                         float* dx, float* dweight, float* dbias);

}  // namespace cadre::kernels
