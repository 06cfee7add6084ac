#include "cadre/data/rotation.h"

namespace cadre {

torch::Tensor random_normal(Random& random, int64_t rows, int64_t columns, double std) {
  auto values = torch::empty({rows, columns});
  float* value = values.data_ptr<float>();
  for (int64_t i = 0; i < values.numel(); ++i) value[i] = static_cast<float>(std) * random.normal();
  return values;
}

torch::Tensor random_rotation(int64_t size, Random random) {
  return std::get<0>(torch::linalg_qr(random_normal(random, size, size, 1.0))).contiguous();
}

}  // namespace cadre
