#pragma once

/// Rotary position embedding (Su et al., "RoFormer: Enhanced Transformer with Rotary Position
/// Embedding", 2021), halves convention: element i of a head turns with element i + dim/2.

#include <cstdint>

namespace cadre::kernels {

/// Rotates x [tokens, heads, dim] in place, `stride` elements from token to token; positions
/// [tokens]; cos, sin [max_position, dim/2]. `sign` +1 rotates, -1 rotates back (the gradient).
void rotary(float* x, const int64_t* positions, const float* cos, const float* sin, int64_t tokens,
            int64_t heads, int64_t dim, int64_t stride, float sign);

}  // namespace cadre::kernels
