#pragma once

/// The product behind panel_matmul and the experts' feed-forward.

#include <cstdint>

#include "cadre/kernels/panels.h"

namespace cadre::kernels {

struct PanelPart {
  int64_t first_token, last_token;
  int64_t first_panel, last_panel;
};

/// Where the output goes: token t, counted from part.first_token, and row r, counted from the first
/// row of part.first_panel, at out[(rows == nullptr ? t : rows[t]) * stride + r].
struct PanelOutput {
  float* out;
  int64_t stride;
  const int32_t* rows = nullptr;
};

/// The canonical chain on the best instruction set of this machine.
void panel_product(const PanelMatrix& weights, const QuantizedActivations& x, const PanelPart& part,
                   const PanelOutput& output);

/// The same in scalar code.
void panel_product_reference(const PanelMatrix& weights, const QuantizedActivations& x,
                             const PanelPart& part, const PanelOutput& output);

}  // namespace cadre::kernels
