#include "cadre/kernels/grouped_gemm.h"

#include <algorithm>
#include <vector>

#include "cadre/base/parallel.h"
#include "cadre/kernels/few_rows.h"
#include "cadre/kernels/gemm.h"
#include "cadre/kernels/row_tiles.h"
#include "cadre/kernels/scratch.h"

namespace cadre::kernels {
namespace {

/// Part of one expert's weight gradient: output rows [begin, end) over all of the expert's rows.
/// Splitting the output, not the sum, needs no reduction.
struct GradPart {
  int64_t expert, begin, end, cost;
};

std::vector<GradPart> grad_parts(int64_t experts, const int64_t* offsets, int64_t n) {
  constexpr int64_t kParts = 16;    // of the whole: a team of up to eight shares them evenly
  constexpr int64_t kMinRows = 64;  // thinner products run below half speed
  const int64_t all_rows = std::max<int64_t>(1, offsets[experts] - offsets[0]);
  std::vector<GradPart> parts;
  for (int64_t expert = 0; expert < experts; ++expert) {
    const int64_t rows = offsets[expert + 1] - offsets[expert];
    const int64_t wanted = std::min((rows * kParts + all_rows - 1) / all_rows, n / kMinRows);
    const int64_t count = std::max<int64_t>(1, wanted);
    for (int64_t i = 0; i < count; ++i) {
      parts.push_back({expert, n * i / count, n * (i + 1) / count, rows / count});
    }
  }
  std::stable_sort(parts.begin(), parts.end(),
                   [](const GradPart& a, const GradPart& b) { return a.cost > b.cost; });
  return parts;
}

template <class Body>
void for_each_tile(int64_t experts, const int64_t* offsets, const Body& body) {
  const std::vector<RowTile> tiles =
      row_tiles(experts, offsets, tile_rows(offsets[experts] - offsets[0]));
  parallel_tasks(static_cast<int64_t>(tiles.size()), [&](int64_t task) { body(tiles[task]); });
}

}  // namespace

void grouped_gemm(int64_t experts, const int64_t* offsets, int64_t n, int64_t k, const float* x,
                  const float* weights, float* y) {
  for_each_tile(experts, offsets, [&](const RowTile& tile) {
    thread_local Scratch scratch;
    float* panel = scratch.floats(kPanelRows * (k + n));
    float* out = panel + kPanelRows * k;
    for_each_panel(tile.rows(), [&](int64_t begin, int64_t rows) {
      const int64_t row = tile.begin + begin;
      to_panel(x + row * k, rows, k, k, panel);
      panel_product(weights + tile.expert * n * k, n, k, panel, padded_rows(rows), out);
      from_panel(out, rows, n, n, y + row * n);
    });
  });
}

void grouped_gemm_input_grad(int64_t experts, const int64_t* offsets, int64_t n, int64_t k,
                             const float* dy, const float* weights, float* dx) {
  for_each_tile(experts, offsets, [&](const RowTile& tile) {
    gemm(Op::kNone, Op::kNone, tile.rows(), k, n, 1, dy + tile.begin * n, n,
         weights + tile.expert * n * k, k, 0, dx + tile.begin * k, k);
  });
}

void grouped_gemm_weight_grad(int64_t experts, const int64_t* offsets, int64_t n, int64_t k,
                              const float* dy, const float* x, float* dw) {
  const std::vector<GradPart> parts = grad_parts(experts, offsets, n);
  parallel_tasks(static_cast<int64_t>(parts.size()), [&](int64_t task) {
    const GradPart& part = parts[task];
    const int64_t first = offsets[part.expert];
    gemm(Op::kTranspose, Op::kNone, part.end - part.begin, k, offsets[part.expert + 1] - first, 1,
         dy + first * n + part.begin, n, x + first * k, k, 0,
         dw + (part.expert * n + part.begin) * k, k);
  });
}

}  // namespace cadre::kernels
