#pragma once

#include <torch/torch.h>

#include "cadre/base/random.h"

namespace cadre {

/// A random orthogonal matrix [size, size]: the Q of the QR factors of a normal one.
torch::Tensor random_rotation(int64_t size, Random random);

/// [rows, columns] of N(0, std^2).
torch::Tensor random_normal(Random& random, int64_t rows, int64_t columns, double std);

}  // namespace cadre
