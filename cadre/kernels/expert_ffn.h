#pragma once

/// The experts' SwiGLU feed-forward as one grouped computation: gate and up product, activation and
/// down product of a row tile follow each other while the tile is in cache.
///
/// E_e(x) = W_down[e] (silu(W_gate[e] x) * (W_up[e] x)), rows sorted by expert as in
/// grouped_gemm.h. Shapes: D = hidden, H = inner width of an expert.

#include <cstdint>

namespace cadre::kernels {

struct ExpertFfnShape {
  int64_t experts;
  int64_t hidden;  ///< D
  int64_t inner;   ///< H
};

/// Forward. offsets [experts + 1], x [rows, D], w_gate [experts, H, D], w_up [experts, H, D],
/// w_down [experts, D, H]; writes gate_up [rows, 2H] (gate product, then up product: what backward
/// needs) and y [rows, D]. gate_up may be null when no backward follows.
void expert_ffn(const ExpertFfnShape& shape, const int64_t* offsets, const float* x,
                const float* w_gate, const float* w_up, const float* w_down, float* gate_up,
                float* y);

/// Backward. dy [rows, D]; writes dx [rows, D], dw_gate [experts, H, D], dw_up, dw_down
/// (overwritten, zero for experts without rows).
void expert_ffn_backward(const ExpertFfnShape& shape, const int64_t* offsets, const float* x,
                         const float* w_gate, const float* w_up, const float* w_down,
                         const float* gate_up, const float* dy, float* dx, float* dw_gate,
                         float* dw_up, float* dw_down);

}  // namespace cadre::kernels
