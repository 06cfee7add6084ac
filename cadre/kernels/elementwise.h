#pragma once

/// Row-wise and element-wise kernels of a transformer with their gradients: one pass over memory each,
/// vectorised (Highway, run-time dispatch) and split over the team. Results do not depend on the
/// number of threads. All matrices are row-major and dense unless a stride is given.

#include <cstdint>

namespace cadre::kernels {

/// y = softmax of each row of x [rows, n]; x and y may be the same. A row of -inf gives zeros.
void softmax_rows(const float* x, int64_t rows, int64_t n, float* y);
/// dx = y * (dy - <y, dy>) per row.
void softmax_rows_backward(const float* y, const float* dy, int64_t rows, int64_t n, float* dx);
/// lse[row] = log sum exp of the row.
void logsumexp_rows(const float* x, int64_t rows, int64_t n, float* lse);

/// RMSNorm (Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019):
/// y = x / sqrt(mean(x^2) + eps) * weight. x, y [rows, n], weight [n]; inverse_rms [rows] is kept for backward.
void rms_norm(const float* x, const float* weight, float eps, int64_t rows, int64_t n, float* y,
              float* inverse_rms);
/// dx [rows, n] and dweight [n], both overwritten.
void rms_norm_backward(const float* x, const float* weight, const float* inverse_rms,
                       const float* dy, int64_t rows, int64_t n, float* dx, float* dweight);

/// LayerNorm (Ba et al., "Layer Normalization", 2016): y = (x - mean) / sqrt(var + eps) * weight + bias.
void layer_norm(const float* x, const float* weight, const float* bias, float eps, int64_t rows,
                int64_t n, float* y, float* mean, float* inverse_std);
void layer_norm_backward(const float* x, const float* weight, const float* mean,
                         const float* inverse_std, const float* dy, int64_t rows, int64_t n,
                         float* dx, float* dweight, float* dbias);

/// SwiGLU's activation (Shazeer, "GLU Variants Improve Transformer", 2020): y = silu(gate) * up,
/// where gate_up [rows, 2n] holds the gate product, then the up product; y [rows, n].
void silu_mul(const float* gate_up, int64_t rows, int64_t n, float* y);
/// dgate_up [rows, 2n] from dy [rows, n].
void silu_mul_backward(const float* gate_up, const float* dy, int64_t rows, int64_t n, float* dgate_up);

/// GELU, tanh form (Hendrycks & Gimpel, "Gaussian Error Linear Units", 2016).
void gelu(const float* x, int64_t n, float* y);
void gelu_backward(const float* x, const float* dy, int64_t n, float* dx);

/// Rotary position embedding (Su et al., "RoFormer", 2021), halves convention (element i pairs with
/// i + dim/2). x [tokens, heads, dim] with `stride` elements from token to token, rotated in place;
/// positions [tokens]; `sign` +1 rotates, -1 rotates back (the gradient). cos, sin [max_position, dim/2].
void rotary(float* x, const int64_t* positions, const float* cos, const float* sin, int64_t tokens,
            int64_t heads, int64_t dim, int64_t stride, float sign);

/// Cross entropy of logits [rows, classes] against targets [rows] (-100 = no loss, no gradient):
/// loss[row] = logsumexp - logit of the target; logits are overwritten by
/// (softmax - one_hot(target)) * scale, the gradient of scale * sum of losses.
void cross_entropy(float* logits, const int64_t* targets, int64_t rows, int64_t classes, float scale,
                   float* loss);

}  // namespace cadre::kernels
