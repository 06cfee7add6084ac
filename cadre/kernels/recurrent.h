#pragma once

/// The element-wise half of a gated recurrent unit, one pass over memory each way.

#include <cstdint>

namespace cadre::kernels {

/// GRU (Cho et al., 2014), in LibTorch's convention: with x [rows, 3n] the input's products and h
/// [rows, 3n] the state's products, biases included, both in the order reset, update, candidate,
///   s = sigmoid(x_s + h_s), z = sigmoid(x_z + h_z), q = tanh(x_q + s * h_q),
///   next = (1 - z) * q + z * state.
/// state and next [rows, n].
void gru(const float* x, const float* h, const float* state, int64_t rows, int64_t n, float* next);

/// Writes dx, dh [rows, 3n] and dstate [rows, n] (the part through z only) from dnext [rows, n].
void gru_backward(const float* x, const float* h, const float* state, const float* dnext,
                  int64_t rows, int64_t n, float* dx, float* dh, float* dstate);

}  // namespace cadre::kernels
