#pragma once

/// Row-wise softmax and the losses built on it, in one or two passes over memory, vectorised and
/// split over the team by rows. Matrices are row-major and dense. Results do not depend on the
/// number of threads; NaN comes through.

#include <cstdint>

namespace cadre::kernels {

/// y = softmax of each row of x [rows, n]; x and y may be the same. A row of -inf gives zeros.
void softmax_rows(const float* x, int64_t rows, int64_t n, float* y);
/// dx = y * (dy - <y, dy>) per row.
void softmax_rows_backward(const float* y, const float* dy, int64_t rows, int64_t n, float* dx);
/// lse[row] = log sum exp of the row; -inf for a row of -inf.
void logsumexp_rows(const float* x, int64_t rows, int64_t n, float* lse);

/// Cross entropy of logits [rows, classes] against targets [rows] (-100 = no loss, no gradient):
/// loss[row] = logsumexp - logit of the target; logits are overwritten by
/// (softmax - one_hot(target)) * scale, the gradient of scale * sum of losses.
/// Throws cadre::Error for a target that is neither -100 nor in [0, classes).
void cross_entropy(float* logits, const int64_t* targets, int64_t rows, int64_t classes,
                   float scale, float* loss);

}  // namespace cadre::kernels
