#include "cadre/engine/router_state.h"

#include <algorithm>
#include <array>

#include "cadre/engine/compute.h"
#include "cadre/engine/vector_math.h"

namespace cadre::engine {
namespace {

constexpr int64_t kTokenGrain = 8;

/// x = tanh(x), as 2 sigmoid(2 x) - 1: the same bits on every instruction set.
void tanh_rows(float* x, int64_t n) {
  scale(2.0F, n, x);
  sigmoid(x, n);
  for (int64_t i = 0; i < n; ++i) x[i] = 2 * x[i] - 1;
}

}  // namespace

void gru_step(float* x, float* h, int64_t n, float* state) {
  add(h, 2 * n, x);
  sigmoid(x, 2 * n);
  const float *reset = x, *update = x + n;
  float* candidate = x + 2 * n;
  for (int64_t i = 0; i < n; ++i) candidate[i] += reset[i] * h[2 * n + i];
  tanh_rows(candidate, n);
  for (int64_t i = 0; i < n; ++i) {
    state[i] = (1 - update[i]) * candidate[i] + update[i] * state[i];
  }
}

void tanh_step(float* x, const float* h, int64_t n, float* state) {
  add(h, n, x);
  tanh_rows(x, n);
  std::copy_n(x, n, state);
}

const Activations& RouterState::advance(int64_t layer, const LayerWeights& weights,
                                        const Activations& x, int64_t tokens) {
  const RecurrentCell& cell = *weights.router_cell;
  const int64_t width = spec_.router.state_width, rows = cell.input.matrix.rows;
  const bool fresh =
      layer == spec_.leading_dense_layers || spec_.router_config.text("memory") == "none";
  if (fresh) {
    state_.resize(tokens, width);
    std::fill_n(state_.row(0), tokens * width, 0.0F);
    state_.quantize(0, tokens);
  }
  read_.resize(tokens, width);
  from_input_.resize(static_cast<size_t>(tokens * rows));
  from_state_.resize(static_cast<size_t>(tokens * rows));
  run_products(team_, std::array{Product{&weights.router_proj, &x, read_.row(0), width}}, tokens);
  read_.quantize(0, tokens);
  run_products(team_,
               std::array{Product{&cell.input, &read_, from_input_.data(), rows},
                          Product{&cell.state, &state_, from_state_.data(), rows}},
               tokens);
  for_ranges(team_, tokens, kTokenGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float *input = from_input_.data() + t * rows, *state = from_state_.data() + t * rows;
      if (rows == 3 * width) {
        gru_step(input, state, width, state_.row(t));
      } else {
        tanh_step(input, state, width, state_.row(t));
      }
    }
    state_.quantize(begin, end);
  });
  return state_;
}

}  // namespace cadre::engine
