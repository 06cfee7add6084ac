#pragma once

/// Dense matrix products over oneDNN. Row-major throughout.

#include <cstdint>

namespace cadre::kernels {

enum class Op { kNone, kTranspose };

/// C[m, n] = alpha * op(A)[m, k] * op(B)[k, n] + beta * C.
/// `lda`, `ldb`, `ldc` are the strides between stored rows, in elements. beta = 0 overwrites C
/// (also NaN). m, n or k of 0 is allowed (k = 0 scales C). Runs on the whole team, or on one thread
/// inside a parallel loop. Throws cadre::Error when oneDNN refuses.
void gemm(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a,
          int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

/// True when this CPU multiplies bfloat16 natively.
bool has_bf16();

/// The same product with bfloat16 inputs (raw 16-bit patterns), fp32 accumulation and fp32 C; beta
/// is 0 or 1. Works on every CPU, fast only where has_bf16().
void gemm_bf16(Op op_a, Op op_b, int64_t m, int64_t n, int64_t k, const uint16_t* a, int64_t lda,
               const uint16_t* b, int64_t ldb, float beta, float* c, int64_t ldc);

/// Rounds `n` floats to bfloat16, ties to even; NaN stays NaN.
void to_bf16(const float* x, int64_t n, uint16_t* y);

}  // namespace cadre::kernels
