#include "cadre/engine/compute.h"

#include <algorithm>

#include "cadre/engine/vector_math.h"

namespace cadre::engine {
namespace {

/// Rows of activations that stay in the second-level cache while the panels pass by.
constexpr int64_t kTokenTile = 256;

void run_part(const Product& product, int64_t tokens, int64_t first, int64_t last) {
  const kernels::PanelMatrix& matrix = product.weights->matrix;
  const int64_t row = first * kernels::kPanelRows;
  const int64_t rows = std::min(last * kernels::kPanelRows, matrix.rows) - row;
  for (int64_t at = 0; at < tokens; at += kTokenTile) {
    const int64_t count = std::min(kTokenTile, tokens - at);
    float* y = product.y + at * product.y_stride;
    kernels::panel_matmul(matrix, product.x->view(at), count, first, last, y, product.y_stride);
    if (product.weights->bias.empty()) continue;
    for (int64_t t = 0; t < count; ++t) {
      add(product.weights->bias.data() + row, rows, y + t * product.y_stride + row);
    }
  }
}

}  // namespace

void run_products(Team& team, std::span<const Product> products, int64_t tokens) {
  if (tokens == 0) return;
  int64_t total = 0;
  for (const Product& product : products) total += panels_of(product.weights->matrix);
  for_ranges(team, total, 1, [&](int64_t begin, int64_t end) {
    int64_t start = 0;
    for (const Product& product : products) {
      const int64_t panels = panels_of(product.weights->matrix);
      const int64_t first = std::max(begin - start, int64_t{0});
      const int64_t last = std::min(end - start, panels);
      if (first < last) run_part(product, tokens, first, last);
      start += panels;
    }
  });
}

}  // namespace cadre::engine
