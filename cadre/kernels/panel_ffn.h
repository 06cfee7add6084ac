#pragma once

/// One expert's feed-forward on panels, W_down (act(W_gate x + b) * (W_up x + b)) + b, cut so that
/// a team shares it: a barrier between the phases is all the order it needs.
///     phase 1  panel_ffn_inner   blocks of 32 inner values (two panels of gate, two of up) x
///     tokens;
///              gate and up stay in the first cache and leave as blocks of int8
///     barrier
///     phase 2  panel_ffn_down    panels of the output x tokens, one row per (token, expert) slot
///     phase 3  combine_slots     columns of the output: no barrier when every thread combines the
///              columns whose panels it computed
/// Every value is a fixed chain of roundings: the bits depend neither on how the work is cut nor on
/// the machine. In decoding, one token and k experts, all (expert, block) pairs form one list.

#include <cstdint>

#include "cadre/kernels/panels.h"

namespace cadre::kernels {

enum class GluKind {
  kSwiGlu,         ///< g sigmoid(g) u (Shazeer, "GLU variants improve transformer", 2020)
  kClampedSwiGlu,  ///< g sigmoid(1.702 g) (u + 1), g at most 7, u within [-7, 7] (gpt-oss)
  kGeluGlu         ///< GELU(g) u in the tanh form: g sigmoid(1.5957691 (g + 0.044715 g^3)) u
};

/// D = hidden, H = inner width; H is a multiple of 32 unless the down matrix has a float format.
struct PanelExpert {
  PanelMatrix gate;                  ///< [H, D]
  PanelMatrix up;                    ///< [H, D]
  PanelMatrix down;                  ///< [D, H]
  const float* gate_bias = nullptr;  ///< [H] or null
  const float* up_bias = nullptr;    ///< [H] or null
  const float* down_bias = nullptr;  ///< [D] or null
  GluKind glu = GluKind::kSwiGlu;
};

/// Where phase 1 leaves the inner activations of one expert's tokens: in 8 bits for a quantised
/// down matrix, as floats for one of a float format. What the down matrix does not read may be
/// null.
struct InnerActivations {
  int8_t* q = nullptr;      ///< [tokens, H]
  float* scale = nullptr;   ///< [tokens, H / 32]
  int16_t* sums = nullptr;  ///< [tokens, H / 32, 2]
  float* values = nullptr;  ///< [tokens, H]

  /// As the input of phase 2.
  QuantizedActivations view(int64_t inner_width) const {
    return {q, scale, sums, values, inner_width};
  }
};

/// Blocks of 32 inner values.
int64_t inner_blocks(const PanelExpert& expert);

/// Phase 1 for blocks [first_block, last_block) and the expert's tokens [first_token, last_token):
/// token t reads row t (or x.rows[t]) of x and writes row t of `inner`.
void panel_ffn_inner(const PanelExpert& expert, const QuantizedActivations& x, int64_t first_token,
                     int64_t last_token, int64_t first_block, int64_t last_block,
                     const InnerActivations& inner);

/// Phase 2 for panels [first_panel, last_panel) of the down matrix and the expert's tokens
/// [first_token, last_token). Token t's output goes to slots[(slot == nullptr ? t : slot[t]) * D].
void panel_ffn_down(const PanelExpert& expert, const InnerActivations& inner, int64_t first_token,
                    int64_t last_token, int64_t first_panel, int64_t last_panel,
                    const int32_t* slot, float* slots);

/// Phase 3: columns [first, last) of y [tokens, width] = sum over i < per_token, in rising order,
/// of weight[t, i] * slots[t * per_token + i], as a chain of fma from 0. slots [tokens * per_token,
/// width].
void combine_slots(const float* slots, const float* weight, int64_t tokens, int64_t per_token,
                   int64_t width, int64_t first, int64_t last, float* y);

/// act(gate) * up for n values in place of gate: the vector code, and the scalar code it must equal
/// bit for bit.
void glu(GluKind kind, float* gate, const float* up, int64_t n);
void glu_reference(GluKind kind, float* gate, const float* up, int64_t n);

}  // namespace cadre::kernels
