#pragma once

/// Scaled dot-product attention with grouped queries, blocked over keys with a running softmax, so
/// that no [length, length] matrix is ever stored (Dao et al., "FlashAttention", 2022). Backward
/// recomputes.

#include <cstdint>

namespace cadre::kernels {

enum class Mask { kNone, kCausal };

/// q [batch, length, heads, dim], k and v [batch, key_length, kv_heads, dim]; token strides in
/// elements (so that they may be slices of one fused projection). heads is a multiple of kv_heads.
/// With kCausal, query i of `length` sits at position key_length - length + i and sees keys up to
/// itself.
struct AttentionShape {
  int64_t batch, length, key_length, heads, kv_heads, dim;
  int64_t q_stride, k_stride, v_stride;  ///< elements from one token to the next
  Mask mask = Mask::kCausal;
  float scale;  ///< usually 1 / sqrt(dim)
};

/// Writes out [batch, length, heads, dim] (dense) and lse [batch, heads, length] (log sum exp of
/// the scores, for backward; may be null).
void attention(const AttentionShape& shape, const float* q, const float* k, const float* v,
               float* out, float* lse);

/// Writes dq, dk, dv with the same strides as q, k, v (overwritten, not accumulated).
void attention_backward(const AttentionShape& shape, const float* q, const float* k, const float* v,
                        const float* out, const float* lse, const float* dout, float* dq, float* dk,
                        float* dv);

}  // namespace cadre::kernels
