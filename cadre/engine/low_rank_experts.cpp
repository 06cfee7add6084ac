#include "cadre/engine/low_rank_experts.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/engine/vector_math.h"

namespace cadre::engine {
namespace {

std::string stack_of(int64_t layer, const char* role, const char* part) {
  return fmt::format("blk.{}.ffn_{}_exps.{}", layer, role, part);
}

void check(bool fits, const TensorSource& source, const SourceTensor& tensor) {
  if (fits) return;
  throw FormatError("{}: tensor {} has a shape that does not fit its expert", source.where(),
                    tensor.name);
}

LowRankMatrix load_matrix(const TensorSource& source, Packer& packer, int64_t layer,
                          const char* role, int64_t expert) {
  const ModelSpec& spec = source.spec();
  const bool down = std::string_view(role) == "down";
  const int64_t rows = down ? spec.hidden : spec.expert_intermediate;
  const int64_t columns = down ? spec.expert_intermediate : spec.hidden;
  const SourceTensor u = source.expert_slice(stack_of(layer, role, "low_rank_u"), expert);
  const SourceTensor v = source.expert_slice(stack_of(layer, role, "low_rank_v"), expert);
  check(u.shape.size() == 2 && u.shape[0] == rows && u.shape[1] >= 1, source, u);
  check(v.shape == std::vector<int64_t>{u.shape[1], columns}, source, v);
  LowRankMatrix matrix = {.u = {.matrix = packer.pack(u)}, .v = {.matrix = packer.pack(v)}};
  matrix.rows = source.integers(stack_of(layer, role, "sparse_rows"), expert);
  if (matrix.rows.empty()) return matrix;
  const SourceTensor sparse = source.expert_slice(stack_of(layer, role, "sparse_weight"), expert);
  const auto count = static_cast<int64_t>(matrix.rows.size());
  check(sparse.shape == std::vector<int64_t>{count, columns}, source, sparse);
  for (const int32_t row : matrix.rows) check(row >= 0 && row < rows, source, sparse);
  matrix.sparse.matrix = packer.pack(sparse);
  return matrix;
}

}  // namespace

bool has_low_rank_experts(const TensorSource& source, int64_t layer) {
  return source.has_expert(stack_of(layer, "gate", "low_rank_u"), 0);
}

LowRankExpert load_low_rank_expert(const TensorSource& source, Packer& packer, int64_t layer,
                                   int64_t expert) {
  return {.gate = load_matrix(source, packer, layer, "gate", expert),
          .up = load_matrix(source, packer, layer, "up", expert),
          .down = load_matrix(source, packer, layer, "down", expert)};
}

void LowRankFeedForward::product(const LowRankMatrix& matrix, const Activations& x, int64_t tokens,
                                 int64_t rows, std::vector<float>& y) {
  const int64_t rank = matrix.v.matrix.rows;
  const auto kept = static_cast<int64_t>(matrix.rows.size());
  narrow_.resize(tokens, rank);
  rows_.resize(static_cast<size_t>(tokens * kept));
  if (kept > 0) {
    run_products(team_,
                 std::array{Product{&matrix.v, &x, narrow_.row(0), rank},
                            Product{&matrix.sparse, &x, rows_.data(), kept}},
                 tokens);
  } else {
    run_products(team_, std::array{Product{&matrix.v, &x, narrow_.row(0), rank}}, tokens);
  }
  narrow_.quantize(0, tokens);
  y.resize(static_cast<size_t>(tokens * rows));
  run_products(team_, std::array{Product{&matrix.u, &narrow_, y.data(), rows}}, tokens);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < kept; ++i) {
      y[static_cast<size_t>(t * rows + matrix.rows[static_cast<size_t>(i)])] +=
          rows_[static_cast<size_t>(t * kept + i)];
    }
  }
}

void LowRankFeedForward::run(const LowRankExpert& expert, const FeedForwardJob& job, Activations& x,
                             float* out) {
  const int64_t count = job.count, hidden = x.columns();
  const int64_t inner = expert.gate.u.matrix.rows;
  x_.resize(count, hidden);
  for (int64_t i = 0; i < count; ++i) std::copy_n(x.row(job.token(i)), hidden, x_.row(i));
  x_.quantize(0, count);
  product(expert.gate, x_, count, inner, gate_);
  product(expert.up, x_, count, inner, up_);
  kernels::glu(glu_, gate_.data(), up_.data(), count * inner);
  inner_.resize(count, inner);
  std::copy_n(gate_.data(), count * inner, inner_.row(0));
  inner_.quantize(0, count);
  product(expert.down, inner_, count, hidden, y_);
  for (int64_t i = 0; i < count; ++i) {
    add_scaled(job.weight(i), y_.data() + i * hidden, hidden, out + job.token(i) * hidden);
  }
}

}  // namespace cadre::engine
