#include "cadre/reshape/compress_experts.h"

#include <algorithm>
#include <cstring>

#include "cadre/base/error.h"
#include "cadre/reshape/expert_steps.h"
#include "cadre/reshape/low_rank_sparse.h"

namespace cadre::reshape {
namespace {

Step factor_step(const Schema& schema, Role role, int64_t layer, int64_t expert,
                 const LowRankOptions& options) {
  const auto shape = schema.expert_shape(role, layer, expert);
  const DType type = expert_dtype(schema, role, layer, expert);
  const auto name = [&](const char* part) {
    return tensor_name(schema.model_type(), role, layer, expert, part);
  };
  const auto kept = static_cast<int64_t>(options.rows_kept * static_cast<double>(shape[0]));
  Step step = {.out = {{name("low_rank_u"), type, {shape[0], options.rank}},
                       {name("low_rank_v"), type, {options.rank, shape[1]}}},
               .in = {schema.expert_matrix(role, layer, expert)}};
  if (kept > 0) {
    step.out.push_back({name("sparse_rows"), DType::kI32, {kept}});
    step.out.push_back({name("sparse_weight"), type, {kept, shape[1]}});
  }
  // The matrix in double, its factors, what they miss.
  step.scratch_bytes = 48 * shape[0] * shape[1];
  step.kernel = WholeKernel([shape, options, kept](const Whole& whole) {
    const LowRankSparse factors =
        factor_low_rank_sparse(shape[0], shape[1], whole.in[0].data(), options);
    std::copy(factors.u.begin(), factors.u.end(), whole.out[0].begin());
    std::copy(factors.v.begin(), factors.v.end(), whole.out[1].begin());
    if (kept == 0) return;
    std::memcpy(whole.out_bytes[2].data(), factors.sparse_rows.data(),
                factors.sparse_rows.size() * sizeof(int32_t));
    std::copy(factors.sparse.begin(), factors.sparse.end(), whole.out[3].begin());
  });
  return step;
}

void check(const Schema& schema, const LowRankOptions& options, const std::string& where) {
  const auto shape = schema.expert_shape(Role::kExpertGate, expert_layers(schema).front(), 0);
  const int64_t most = std::min(shape[0], shape[1]);
  if (options.rank < 1 || options.rank > most) {
    throw UsageError("{}: rank is {}, must be from 1 to {}", where, options.rank, most);
  }
  if (!(options.rows_kept >= 0 && options.rows_kept <= 1)) {
    throw UsageError("{}: rows is {}, must be a share in [0, 1]", where, options.rows_kept);
  }
}

class LowrankSparse : public ReshapeOp {
 public:
  Plan plan(const PlanRequest& request) const override {
    const Schema& schema = request.inputs[0]->schema();
    const LowRankOptions options = {.rank = request.params.integer("rank"),
                                    .rows_kept = request.params.number("rows"),
                                    .seed = static_cast<uint64_t>(request.params.integer("seed"))};
    check(schema, options, request.params.where());
    Plan plan = {.config_out = schema.config()};
    for (const int64_t layer : expert_layers(schema)) {
      for (int64_t e = 0; e < schema.experts_of(layer); ++e) {
        for (const Role role : kExpertRoles) {
          plan.steps.push_back(factor_step(schema, role, layer, e, options));
        }
      }
    }
    for (const SchemaTensor& tensor : schema.tensors()) {
      if (!is_routed_expert(tensor)) plan.steps.push_back(copy_step(tensor, 0));
    }
    return plan;
  }
};

}  // namespace

OpInfo lowrank_sparse_op() {
  return {.name = "lowrank_sparse",
          .help = "Experts' matrices as low rank plus a few whole rows",
          .paper =
              "Merge, Then Compress: Demystify Efficient SMoE with Hints from Its Routing "
              "Policy, 2024",
          .min_inputs = 1,
          .max_inputs = 1,
          .params = {{"rank", ParamType::kInteger, 32, "Rank of every matrix"},
                     {"rows", ParamType::kNumber, 0.1, "Share of whole rows kept beside it"},
                     {"seed", ParamType::kInteger, 0, "Of the randomised decomposition"}},
          .make = [] { return std::unique_ptr<ReshapeOp>(std::make_unique<LowrankSparse>()); }};
}

}  // namespace cadre::reshape
