#include "cadre/reshape/copy.h"

#include <algorithm>
#include <array>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/reshape/values.h"

namespace cadre::reshape {
namespace {

class CastKernel : public TileKernel {
 public:
  void compute(const Tile& tile) const override {
    std::copy(tile.in[0].begin(), tile.in[0].end(), tile.out.begin());
  }
};

class CopyOp : public ReshapeOp {
 public:
  Plan plan(const PlanRequest& request) const override {
    const Schema& schema = request.inputs[0]->schema();
    Plan plan = {.config_out = schema.config()};
    for (const SchemaTensor& tensor : schema.tensors())
      plan.steps.push_back(cast_step(
          tensor, 0,
          dtype_param(request.params.text("dtype"), tensor.info.dtype, request.params.where())));
    return plan;
  }
};

}  // namespace

std::shared_ptr<TileKernel> cast_kernel() { return std::make_shared<CastKernel>(); }

Step cast_step(const SchemaTensor& tensor, int checkpoint, DType dtype, const std::string& name) {
  Step step = copy_step(tensor, checkpoint, name);
  if (dtype == tensor.info.dtype || !is_floating(tensor.info.dtype)) return step;
  step.out.front().dtype = dtype;
  step.kernel = cast_kernel();
  return step;
}

DType dtype_param(const std::string& text, DType fallback, const std::string& where) {
  constexpr std::array<std::pair<std::string_view, DType>, 8> kNames = {{{"F32", DType::kF32},
                                                                         {"float32", DType::kF32},
                                                                         {"F16", DType::kF16},
                                                                         {"float16", DType::kF16},
                                                                         {"BF16", DType::kBF16},
                                                                         {"bfloat16", DType::kBF16},
                                                                         {"F64", DType::kF64},
                                                                         {"float64", DType::kF64}}};
  if (text.empty()) return fallback;
  for (const auto& [name, type] : kNames)
    if (name == text) return type;
  throw UsageError("{}: dtype \"{}\" is none of F32, F16, BF16, F64", where, text);
}

OpInfo copy_op() {
  return {.name = "copy",
          .help = "The same tensors in other shards or another type",
          .paper = "",
          .min_inputs = 1,
          .max_inputs = 1,
          .params = {{"dtype", ParamType::kText, "", "F32, F16, BF16 or F64; default: as stored"}},
          .make = [] { return std::unique_ptr<ReshapeOp>(std::make_unique<CopyOp>()); }};
}

}  // namespace cadre::reshape
