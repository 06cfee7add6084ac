#include "cadre/kernels/panel_ffn.h"

#include <algorithm>
#include <cstring>

#include "cadre/kernels/panel_layout.h"
#include "cadre/kernels/panel_product.h"

namespace cadre::kernels {
namespace {

constexpr int64_t kBlock = kActivationBlock;
/// Tokens whose gate and up values are held at once: 2 x 6 KB stay in the first cache, beside a
/// whole number of register tiles.
constexpr int64_t kChunk = 48;

/// act(gate) * up of `tokens` tokens and one block of inner values, in gate [tokens, 32]; columns
/// beyond `width` are not touched.
void inner_values(const PanelExpert& expert, const QuantizedActivations& x, int64_t first_token,
                  int64_t tokens, int64_t block, int64_t width, float* gate) {
  float up[kChunk * kBlock];
  const int64_t first_panel = block * (kBlock / kPanelRows);
  const int64_t panels = (width + kPanelRows - 1) / kPanelRows;
  const PanelPart part = {first_token, first_token + tokens, first_panel, first_panel + panels};
  panel_product(expert.gate, x, part, {gate, kBlock});
  panel_product(expert.up, x, part, {up, kBlock});
  for (int64_t t = 0; t < tokens; ++t) {
    float* g = gate + t * kBlock;
    float* u = up + t * kBlock;
    for (int64_t i = 0; i < width && expert.gate_bias; ++i)
      g[i] += expert.gate_bias[block * 32 + i];
    for (int64_t i = 0; i < width && expert.up_bias; ++i) u[i] += expert.up_bias[block * 32 + i];
    glu(expert.glu, g, u, width);
  }
}

void store_inner(const InnerActivations& inner, int64_t inner_width, int64_t first_token,
                 int64_t tokens, int64_t block, int64_t width, const float* values) {
  for (int64_t t = 0; t < tokens; ++t) {
    const float* from = values + t * kBlock;
    const int64_t at = (first_token + t) * inner_width + block * kBlock;
    if (inner.values != nullptr) {
      std::memcpy(inner.values + at, from, static_cast<size_t>(width) * sizeof(float));
    }
    if (inner.q != nullptr) {
      const int64_t unit = (first_token + t) * (inner_width / kBlock) + block;
      quantize_activations(from, 1, kBlock, inner.q + at, inner.scale + unit,
                           inner.sums + 2 * unit);
    }
  }
}

}  // namespace

int64_t inner_blocks(const PanelExpert& expert) { return (expert.gate.rows + kBlock - 1) / kBlock; }

void panel_ffn_inner(const PanelExpert& expert, const QuantizedActivations& x, int64_t first_token,
                     int64_t last_token, int64_t first_block, int64_t last_block,
                     const InnerActivations& inner) {
  float gate[kChunk * kBlock];
  for (int64_t block = first_block; block < last_block; ++block) {
    const int64_t width = std::min(kBlock, expert.gate.rows - block * kBlock);
    for (int64_t token = first_token; token < last_token; token += kChunk) {
      const int64_t tokens = std::min(kChunk, last_token - token);
      inner_values(expert, x, token, tokens, block, width, gate);
      store_inner(inner, expert.gate.rows, token, tokens, block, width, gate);
    }
  }
}

void panel_ffn_down(const PanelExpert& expert, const InnerActivations& inner, int64_t first_token,
                    int64_t last_token, int64_t first_panel, int64_t last_panel,
                    const int32_t* slot, float* slots) {
  const int64_t width = expert.down.rows;
  const int64_t first = first_panel * kPanelRows;
  const int64_t last = std::min(width, last_panel * kPanelRows);
  const int32_t* rows = slot == nullptr ? nullptr : slot + first_token;
  float* out = slots + (slot == nullptr ? first_token * width : 0) + first;
  panel_product(expert.down, inner.view(expert.gate.rows),
                {first_token, last_token, first_panel, last_panel}, {out, width, rows});
  if (expert.down_bias == nullptr) return;
  for (int64_t t = 0; t < last_token - first_token; ++t) {
    float* y = out + (rows == nullptr ? t : rows[t]) * width;
    for (int64_t c = first; c < last; ++c) y[c - first] += expert.down_bias[c];
  }
}

}  // namespace cadre::kernels
