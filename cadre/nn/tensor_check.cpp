#include "cadre/nn/tensor_check.h"

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"

namespace cadre {

void join_team() {
  if (at::get_num_threads() != num_threads()) at::set_num_threads(num_threads());
}

std::string describe(const torch::Tensor& x) {
  if (!x.defined()) return "undefined";
  return fmt::format("[{}] {}", fmt::join(x.sizes(), ", "), c10::toString(x.scalar_type()));
}

void check_fp32(const torch::Tensor& x, std::string_view name) {
  if (!x.defined()) throw UsageError("{} is undefined, expected an fp32 tensor", name);
  if (x.scalar_type() != torch::kFloat32 || !x.device().is_cpu()) {
    throw UsageError("{} is {} on {}: the kernels work on fp32 in main memory", name, describe(x),
                     x.device().str());
  }
}

torch::Tensor dense_fp32(const torch::Tensor& x, std::string_view name) {
  check_fp32(x, name);
  return x.contiguous();
}

torch::Tensor empty_rows(const torch::Tensor& x, int64_t width) {
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() = width;
  return torch::empty(sizes, x.options());
}

torch::Tensor dense_ids(const torch::Tensor& ids, int64_t limit, std::string_view name,
                        int64_t ignored) {
  if (!ids.defined() || ids.scalar_type() != torch::kInt64) {
    throw UsageError("{} must be int64, got {}", name, describe(ids));
  }
  const torch::Tensor dense = ids.contiguous();
  const int64_t* data = dense.data_ptr<int64_t>();
  for (int64_t i = 0; i < dense.numel(); ++i) {
    if ((data[i] < 0 || data[i] >= limit) && data[i] != ignored) {
      throw UsageError("{} holds {} at place {}, allowed are 0 to {}", name, data[i], i, limit - 1);
    }
  }
  return dense;
}

}  // namespace cadre
