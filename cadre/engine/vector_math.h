#pragma once

/// The element-wise mathematics of a forward pass. Every function gives the same bits on every
/// instruction set with fused multiply-add: sums run in 16 lanes (element i in lane i % 16), which
/// are then added as a tree; there is no other order to choose.

#include <cstdint>

namespace cadre::engine {

/// y = x / sqrt(mean(x^2) + eps) * weight (Zhang & Sennrich, "Root Mean Square Layer
/// Normalization", 2019). y may be x.
void rms_norm(const float* x, const float* weight, float eps, int64_t n, float* y);
/// y = (x - mean) / sqrt(variance + eps) * weight + bias (Ba et al., "Layer Normalization", 2016);
/// bias may be null.
void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t n,
                float* y);
float dot(const float* a, const float* b, int64_t n);
/// x = e^(x - max) / sum.
void softmax(float* x, int64_t n);
/// x = 1 / (1 + e^-x).
void sigmoid(float* x, int64_t n);
/// y = y + a x, fused.
void add_scaled(float a, const float* x, int64_t n, float* y);
/// x = x + b.
void add(const float* b, int64_t n, float* x);
void scale(float a, int64_t n, float* x);
/// x in [-limit, limit].
void clamp(float limit, int64_t n, float* x);
/// Largest of |x|'s bits tell: true when all are finite.
bool all_finite(const float* x, int64_t n);

/// Rotates pairs by the angles of `cosine`, `sine` [n / 2]: (x_i, x_(i + n / 2)), or neighbours.
void rotate_halves(const float* cosine, const float* sine, int64_t n, float* x);
void rotate_neighbours(const float* cosine, const float* sine, int64_t n, float* x);

/// To BF16, ties to even; a NaN stays one.
void to_bf16(const float* x, int64_t n, int64_t stride, uint16_t* y);
/// To 8 bits: x = y * scale, rounded half away from zero; returns the scale, max |x| / 127. When a
/// value is not finite, the scale is NaN.
float to_q8(const float* x, int64_t n, int64_t stride, int8_t* y);

}  // namespace cadre::engine
