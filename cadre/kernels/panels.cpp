#include "cadre/kernels/panels.h"

namespace cadre::kernels {

void quantize_activations(const float* x, int64_t tokens, int64_t columns, int8_t* q, float* scale,
                          int16_t* sums) {
  quantize_activations_reference(x, tokens, columns, q, scale, sums);
}

void panel_matmul(const PanelMatrix& weights, const QuantizedActivations& x, int64_t tokens,
                  int64_t first_panel, int64_t last_panel, float* y, int64_t y_stride) {
  panel_matmul_reference(weights, x, tokens, first_panel, last_panel, y, y_stride);
}

}  // namespace cadre::kernels
