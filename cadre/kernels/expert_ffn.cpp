#include "cadre/kernels/expert_ffn.h"

#include <algorithm>
#include <vector>

#include "cadre/base/parallel.h"
#include "cadre/kernels/activation.h"
#include "cadre/kernels/few_rows.h"
#include "cadre/kernels/gemm.h"
#include "cadre/kernels/kernel_timer.h"
#include "cadre/kernels/row_tiles.h"
#include "cadre/kernels/scratch.h"

namespace cadre::kernels {
namespace {

/// An expert of up to so many rows runs backward as one task, its weight gradients right after the
/// rows they are made of; a busier one is cut into tiles first and into parts of its weight
/// gradients then.
constexpr int64_t kWholeExpertRows = 768;

/// The arguments of backward, and what its steps hand on about rows [first, ...).
struct Backward {
  ExpertFfnShape shape;
  const float *x, *w_gate, *w_up, *w_down, *gate_up, *dy;
  float *dx, *dw_gate, *dw_up, *dw_down;

  /// From dy to the gradient of the three products' outputs and inputs: writes act [rows, H] (the
  /// activation, computed again from gate_up), dgate_up [rows, 2H] and the tile's dx.
  /// dact [rows, H] is working space.
  void rows(const RowTile& tile, float* act, float* dact, float* dgate_up) const {
    const auto [experts, hidden, inner] = shape;
    const int64_t weight = tile.expert * inner * hidden;
    const float* products = gate_up + tile.begin * 2 * inner;
    float* dx_tile = dx + tile.begin * hidden;
    gemm(Op::kNone, Op::kNone, tile.rows(), inner, hidden, 1, dy + tile.begin * hidden, hidden,
         w_down + weight, inner, 0, dact, inner);
    silu_mul(products, tile.rows(), inner, act);
    silu_mul_backward(products, dact, tile.rows(), inner, dgate_up);
    gemm(Op::kNone, Op::kNone, tile.rows(), hidden, inner, 1, dgate_up, 2 * inner, w_gate + weight,
         hidden, 0, dx_tile, hidden);
    gemm(Op::kNone, Op::kNone, tile.rows(), hidden, inner, 1, dgate_up + inner, 2 * inner,
         w_up + weight, hidden, 1, dx_tile, hidden);
  }

  /// Rows [begin, end) of dw_gate or dw_up from the tile's half of dgate_up.
  void grad_in(const RowTile& tile, const float* dhalf, int64_t begin, int64_t end,
               float* dw) const {
    const auto [experts, hidden, inner] = shape;
    gemm(Op::kTranspose, Op::kNone, end - begin, hidden, tile.rows(), 1, dhalf + begin, 2 * inner,
         x + tile.begin * hidden, hidden, 0, dw + (tile.expert * inner + begin) * hidden, hidden);
  }

  /// Rows [begin, end) of dw_down.
  void grad_down(const RowTile& tile, const float* act, int64_t begin, int64_t end) const {
    const auto [experts, hidden, inner] = shape;
    gemm(Op::kTranspose, Op::kNone, end - begin, inner, tile.rows(), 1,
         dy + tile.begin * hidden + begin, hidden, act, inner, 0,
         dw_down + (tile.expert * hidden + begin) * inner, inner);
  }

  /// All of one expert; the intermediate rows live in the thread's scratch. The left factors of the
  /// weight gradients are transposed here: oneDNN's product of plain matrices packs neither, that
  /// of a transposed one loses a fifth to packing at 64 rows.
  void whole_expert(const RowTile& expert) const {
    thread_local Scratch scratch;
    const auto [experts, hidden, inner] = shape;
    const int64_t count = expert.rows();
    const int64_t weight = expert.expert * inner * hidden;
    float* act = scratch.floats(count * (4 * inner + std::max(2 * inner, hidden)));
    float* dact = act + count * inner;
    float* dgate_up = dact + count * inner;
    float* turned = dgate_up + count * 2 * inner;
    rows(expert, act, dact, dgate_up);
    transpose(dgate_up, count, 2 * inner, 2 * inner, turned, count);
    const float* x_rows = x + expert.begin * hidden;
    plain_product(inner, hidden, count, turned, x_rows, dw_gate + weight);
    plain_product(inner, hidden, count, turned + inner * count, x_rows, dw_up + weight);
    transpose(dy + expert.begin * hidden, count, hidden, hidden, turned, count);
    plain_product(hidden, inner, count, turned, act, dw_down + weight);
  }

  static void plain_product(int64_t m, int64_t n, int64_t k, const float* a, const float* b,
                            float* c) {
    gemm(Op::kNone, Op::kNone, m, n, k, 1, a, k, b, n, 0, c, n);
  }

  void clear(int64_t expert) const {
    const int64_t size = shape.hidden * shape.inner;
    for (float* dw : {dw_gate, dw_up, dw_down}) {
      std::fill(dw + expert * size, dw + (expert + 1) * size, 0.0f);
    }
  }
};

/// Backward of the experts that are too busy for one task.
class BusyExperts {
 public:
  BusyExperts(const Backward& backward, std::vector<RowTile> experts)
      : backward_(backward), experts_(std::move(experts)) {
    for (const RowTile& expert : experts_) {
      starts_.push_back(rows_);
      rows_ += expert.rows();
    }
  }

  void run() {
    if (experts_.empty()) return;
    thread_local Scratch scratch;
    act_ = scratch.floats(rows_ * 3 * backward_.shape.inner);
    dgate_up_ = act_ + rows_ * backward_.shape.inner;
    run_rows();
    run_weights();
  }

 private:
  void run_rows() {
    const int64_t inner = backward_.shape.inner;
    const int64_t max_rows = tile_rows(rows_);
    std::vector<std::pair<RowTile, int64_t>> tiles;  // and where its rows lie in act_
    for (size_t i = 0; i < experts_.size(); ++i) {
      const RowTile& expert = experts_[i];
      for (int64_t begin = expert.begin; begin < expert.end; begin += max_rows) {
        tiles.push_back({{expert.expert, begin, std::min(expert.end, begin + max_rows)},
                         starts_[i] + begin - expert.begin});
      }
    }
    parallel_tasks(static_cast<int64_t>(tiles.size()), [&](int64_t task) {
      thread_local Scratch scratch;
      const auto& [tile, at] = tiles[task];
      backward_.rows(tile, act_ + at * inner, scratch.floats(tile.rows() * inner),
                     dgate_up_ + at * 2 * inner);
    });
  }

  /// Output rows are split, so that no partial sums have to be added.
  void run_weights() {
    const auto [experts, hidden, inner] = backward_.shape;
    const int64_t parts = std::clamp<int64_t>(inner / 64, 1, 4);
    const int64_t tasks = static_cast<int64_t>(experts_.size()) * parts;
    parallel_tasks(tasks, [&, hidden = hidden, inner = inner](int64_t task) {
      const RowTile& expert = experts_[task / parts];
      const int64_t at = starts_[task / parts];
      const int64_t part = task % parts;
      const int64_t begin = inner * part / parts;
      const int64_t end = inner * (part + 1) / parts;
      const float* dgate = dgate_up_ + at * 2 * inner;
      backward_.grad_in(expert, dgate, begin, end, backward_.dw_gate);
      backward_.grad_in(expert, dgate + inner, begin, end, backward_.dw_up);
      backward_.grad_down(expert, act_ + at * inner, hidden * part / parts,
                          hidden * (part + 1) / parts);
    });
  }

  const Backward& backward_;
  std::vector<RowTile> experts_;
  std::vector<int64_t> starts_;
  int64_t rows_ = 0;
  float* act_ = nullptr;
  float* dgate_up_ = nullptr;
};

}  // namespace

void expert_ffn(const ExpertFfnShape& shape, const int64_t* offsets, const float* x,
                const float* w_gate, const float* w_up, const float* w_down, float* gate_up,
                float* y) {
  static Profile::Section& section = Profile::global().section("expert_ffn");
  const KernelTimer timer(section);
  const int64_t hidden = shape.hidden;
  const int64_t inner = shape.inner;
  const std::vector<RowTile> tiles =
      row_tiles(shape.experts, offsets, tile_rows(offsets[shape.experts] - offsets[0]));
  parallel_tasks(static_cast<int64_t>(tiles.size()), [&](int64_t task) {
    thread_local Scratch scratch;
    const RowTile& tile = tiles[task];
    const int64_t weight = tile.expert * inner * hidden;
    float* in = scratch.floats(kPanelRows * (2 * hidden + 3 * inner));
    float* out = in + kPanelRows * hidden;
    float* products = out + kPanelRows * hidden;
    float* act = products + kPanelRows * 2 * inner;
    for_each_panel(tile.rows(), [&](int64_t begin, int64_t rows) {
      const int64_t row = tile.begin + begin;
      const int64_t columns = padded_rows(rows);
      to_panel(x + row * hidden, rows, hidden, hidden, in);
      panel_product(w_gate + weight, inner, hidden, in, columns, products);
      panel_product(w_up + weight, inner, hidden, in, columns, products + inner * columns);
      silu_mul(products, 1, inner * columns, act);
      panel_product(w_down + weight, hidden, inner, act, columns, out);
      from_panel(out, rows, hidden, hidden, y + row * hidden);
      if (gate_up != nullptr) {
        from_panel(products, rows, 2 * inner, 2 * inner, gate_up + row * 2 * inner);
      }
    });
  });
}

void expert_ffn_backward(const ExpertFfnShape& shape, const int64_t* offsets, const float* x,
                         const float* w_gate, const float* w_up, const float* w_down,
                         const float* gate_up, const float* dy, float* dx, float* dw_gate,
                         float* dw_up, float* dw_down) {
  static Profile::Section& section = Profile::global().section("expert_ffn_backward");
  const KernelTimer timer(section);
  const Backward backward{shape, x, w_gate, w_up, w_down, gate_up, dy, dx, dw_gate, dw_up, dw_down};
  std::vector<RowTile> whole;
  std::vector<RowTile> busy;
  std::vector<int64_t> idle;
  for (int64_t expert = 0; expert < shape.experts; ++expert) {
    const RowTile all{expert, offsets[expert], offsets[expert + 1]};
    if (all.rows() == 0) {
      idle.push_back(expert);
    } else {
      (all.rows() > kWholeExpertRows ? busy : whole).push_back(all);
    }
  }
  BusyExperts(backward, std::move(busy)).run();
  std::stable_sort(whole.begin(), whole.end(),
                   [](const RowTile& a, const RowTile& b) { return a.rows() > b.rows(); });
  const int64_t working = static_cast<int64_t>(whole.size());
  parallel_tasks(working + static_cast<int64_t>(idle.size()), [&](int64_t task) {
    if (task < working) {
      backward.whole_expert(whole[task]);
    } else {
      backward.clear(idle[task - working]);
    }
  });
}

}  // namespace cadre::kernels
