#include "cadre/experts/partition.h"

#include "cadre/base/error.h"

namespace cadre {
namespace {

using torch::Tensor;

int64_t part_of(int64_t size, int64_t n) {
  if (n < 1 || size % n != 0) {
    throw UsageError("partition: a width of {} does not divide into {} experts", size, n);
  }
  return size / n;
}

/// f of a tensor that may be absent.
template <class F>
Tensor when_defined(const Tensor& x, F f) {
  return x.defined() ? f(x) : x;
}

/// [E, R, C] <-> [E m, R / m, C].
Tensor segment_rows(const Tensor& w, int64_t m) {
  return w.reshape({w.size(0) * m, part_of(w.size(1), m), w.size(2)}).clone();
}
Tensor unsegment_rows(const Tensor& w, int64_t m) {
  return w.reshape({part_of(w.size(0), m), w.size(1) * m, w.size(2)}).clone();
}

/// [E, R, C] <-> [E m, R, C / m].
Tensor segment_columns(const Tensor& w, int64_t m) {
  return segment_rows(w.transpose(1, 2), m).transpose(1, 2).contiguous();
}
Tensor unsegment_columns(const Tensor& w, int64_t m) {
  return unsegment_rows(w.transpose(1, 2), m).transpose(1, 2).contiguous();
}

}  // namespace

Tensor split_rows(const Tensor& matrix, int64_t n) {
  std::vector<int64_t> sizes = {n, part_of(matrix.size(0), n)};
  sizes.insert(sizes.end(), matrix.sizes().begin() + 1, matrix.sizes().end());
  return matrix.reshape(sizes).clone();
}

Tensor join_rows(const Tensor& parts) { return parts.flatten(0, 1).clone(); }

Tensor split_columns(const Tensor& matrix, int64_t n) {
  const int64_t part = part_of(matrix.size(1), n);
  return matrix.reshape({matrix.size(0), n, part}).transpose(0, 1).contiguous();
}

Tensor join_columns(const Tensor& parts) {
  return parts.transpose(0, 1).reshape({parts.size(1), -1}).clone();
}

UnionMlp partition(const DenseMlp& dense, int64_t n) {
  const auto rows = [n](const Tensor& x) { return split_rows(x, n); };
  return {.up = rows(dense.up),
          .up_bias = when_defined(dense.up_bias, rows),
          .down = split_columns(dense.down, n),
          .down_bias = dense.down_bias};
}

DenseMlp fuse(const UnionMlp& parts) {
  return {.up = join_rows(parts.up),
          .up_bias = when_defined(parts.up_bias, join_rows),
          .down = join_columns(parts.down),
          .down_bias = parts.down_bias};
}

UnionSwiGlu partition(const DenseSwiGlu& dense, int64_t n) {
  return {.gate = split_rows(dense.gate, n),
          .up = split_rows(dense.up, n),
          .down = split_columns(dense.down, n)};
}

DenseSwiGlu fuse(const UnionSwiGlu& parts) {
  return {
      .gate = join_rows(parts.gate), .up = join_rows(parts.up), .down = join_columns(parts.down)};
}

UnionSwiGlu segment(const UnionSwiGlu& experts, int64_t m) {
  return {.gate = segment_rows(experts.gate, m),
          .up = segment_rows(experts.up, m),
          .down = segment_columns(experts.down, m)};
}

UnionSwiGlu unsegment(const UnionSwiGlu& parts, int64_t m) {
  return {.gate = unsegment_rows(parts.gate, m),
          .up = unsegment_rows(parts.up, m),
          .down = unsegment_columns(parts.down, m)};
}

UnionAttention partition(const DenseAttention& dense, int64_t heads, int64_t n) {
  part_of(heads, n);
  part_of(dense.q.size(0), heads);
  return {.q = split_rows(dense.q, n),
          .k = split_rows(dense.k, n),
          .v = split_rows(dense.v, n),
          .o = split_columns(dense.o, n)};
}

DenseAttention fuse(const UnionAttention& parts) {
  return {.q = join_rows(parts.q),
          .k = join_rows(parts.k),
          .v = join_rows(parts.v),
          .o = join_columns(parts.o)};
}

}  // namespace cadre
