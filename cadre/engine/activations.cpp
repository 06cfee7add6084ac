#include "cadre/engine/activations.h"

#include <algorithm>

namespace cadre::engine {
namespace {

constexpr int64_t kBlock = kernels::kActivationBlock;

/// Grows only: shrinking and growing again would clear the new part each time.
template <typename T>
void grow(std::vector<T>& numbers, int64_t size) {
  if (numbers.size() < static_cast<size_t>(size)) numbers.resize(static_cast<size_t>(size));
}

}  // namespace

void Activations::resize(int64_t rows, int64_t columns, Floats floats) {
  rows_ = rows;
  columns_ = columns;
  floats_ = floats;
  if (floats == Floats::kKeep) keep_floats();
  grow(q_, rows * columns);
  grow(scales_, rows * (columns / kBlock));
  grow(sums_, rows * (columns / kBlock) * 2);
}

void Activations::quantize(int64_t first, int64_t last) {
  if (columns_ % kBlock != 0) return;
  const int64_t blocks = first * (columns_ / kBlock);
  kernels::quantize_activations(row(first), last - first, columns_, q_.data() + first * columns_,
                                scales_.data() + blocks, sums_.data() + 2 * blocks);
}

void Activations::keep_floats() {
  floats_ = Floats::kKeep;
  grow(values_, rows_ * columns_);
}

kernels::InnerActivations Activations::inner_floats(int64_t first) {
  return {.values = values_.data() + first * columns_};
}

kernels::InnerActivations Activations::inner_bytes(int64_t first) {
  const int64_t block = first * (columns_ / kBlock);
  return {q_.data() + first * columns_, scales_.data() + block, sums_.data() + 2 * block};
}

kernels::QuantizedActivations Activations::view(int64_t first, const int32_t* rows) const {
  const int64_t at = first * columns_, block = first * (columns_ / kBlock);
  const float* values = floats_ == Floats::kKeep ? values_.data() + at : nullptr;
  return {q_.data() + at, scales_.data() + block, sums_.data() + 2 * block, values, columns_, rows};
}

}  // namespace cadre::engine
