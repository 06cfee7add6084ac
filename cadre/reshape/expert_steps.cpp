#include "cadre/reshape/expert_steps.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/base/random.h"

namespace cadre::reshape {

bool is_routed_expert(const SchemaTensor& tensor) {
  return tensor.expert >= 0 || tensor.is_stack();
}

std::vector<int64_t> expert_layers(const Schema& schema) {
  std::vector<int64_t> layers;
  for (int64_t layer = 0; layer < schema.layers(); ++layer) {
    if (schema.experts_of(layer) > 0) layers.push_back(layer);
  }
  if (layers.empty()) throw UsageError("{}: is a dense model, it has no experts", schema.where());
  return layers;
}

DType expert_dtype(const Schema& schema, Role role, int64_t layer, int64_t expert) {
  return schema.require(schema.expert_matrix(role, layer, expert).name).info.dtype;
}

std::vector<float> read_expert(const Checkpoint& checkpoint, Role role, int64_t layer,
                               int64_t expert) {
  const Schema& schema = checkpoint.schema();
  const SliceRef slice = schema.expert_matrix(role, layer, expert);
  const SchemaTensor& tensor = schema.require(slice.name);
  const int64_t columns = columns_of(tensor.info.shape);
  std::vector<float> values(static_cast<size_t>(slice.rows * columns));
  read_values(checkpoint, tensor, slice.first_row * columns, values);
  return values;
}

Step copy_expert_step(const Schema& schema, Role role, int64_t layer, int64_t from, int64_t to) {
  return {
      .out = {{tensor_name(schema.model_type(), role, layer, to),
               expert_dtype(schema, role, layer, from), schema.expert_shape(role, layer, from)}},
      .in = {schema.expert_matrix(role, layer, from)},
      .kernel = CopyKernel{}};
}

Step copy_rows_step(const SchemaTensor& tensor, int checkpoint, std::span<const int32_t> rows,
                    const std::string& name) {
  Step step = {.out = {tensor.info}, .kernel = CopyKernel{}};
  step.out.front().name = name;
  step.out.front().shape.front() = static_cast<int64_t>(rows.size());
  for (size_t begin = 0; begin < rows.size();) {
    size_t end = begin + 1;
    while (end < rows.size() && rows[end] == rows[end - 1] + 1) ++end;
    step.in.push_back({.checkpoint = checkpoint,
                       .name = tensor.info.name,
                       .first_row = rows[begin],
                       .rows = static_cast<int64_t>(end - begin)});
    begin = end;
  }
  return step;
}

WholeKernel random_router(float deviation, int64_t seed, int64_t layer) {
  return [=](const Whole& whole) {
    if (deviation == 0) return std::fill(whole.out[0].begin(), whole.out[0].end(), 0.0F);
    Random random(static_cast<uint64_t>(seed), {static_cast<uint64_t>(layer), 1});
    for (float& value : whole.out[0]) value = deviation * random.normal();
  };
}

void set_expert_count(nlohmann::json& config, int64_t experts, const std::string& where) {
  for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
    if (!config.contains(key)) continue;
    config[key] = experts;
    if (config.contains("num_experts_per_tok")) {
      config["num_experts_per_tok"] =
          std::min(config["num_experts_per_tok"].get<int64_t>(), experts);
    }
    return;
  }
  throw UsageError("{}: config.json does not say how many experts there are", where);
}

const StatsIndex& need_stats(const PlanRequest& request, const std::string& what) {
  if (request.stats != nullptr) return *request.stats;
  throw UsageError("{}: {} needs statistics: collect them with cadre calibrate, then give --stats",
                   request.params.where(), what);
}

}  // namespace cadre::reshape
