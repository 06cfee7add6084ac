#include "cadre/reshape/ops.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/reshape/compress_experts.h"
#include "cadre/reshape/copy.h"
#include "cadre/reshape/delta.h"
#include "cadre/reshape/factorize.h"
#include "cadre/reshape/merge.h"
#include "cadre/reshape/merge_experts.h"
#include "cadre/reshape/prune_experts.h"
#include "cadre/reshape/upcycle.h"

namespace cadre::reshape {

std::span<const OpInfo> reshape_ops() {
  // To add an operation: a header with OpInfo NAME_op(), and its line here.
  static const std::vector<OpInfo> ops = {
      apply_delta_op(),   copy_op(),  factorize_op(),     fuse_op(),    lowrank_sparse_op(),
      merge_experts_op(), merge_op(), prune_experts_op(), upcycle_op(),
  };
  return ops;
}

const OpInfo& op_named(std::string_view name) {
  std::vector<std::string> names;
  for (const OpInfo& op : reshape_ops()) {
    if (op.name == name) return op;
    names.emplace_back(op.name);
  }
  throw UsageError("unknown operation '{}'{} (known: {})", name, did_you_mean(name, names),
                   fmt::join(names, ", "));
}

Plan plan_op(const OpInfo& op, std::span<const CheckpointPtr> inputs, const nlohmann::json& values,
             const StatsIndex* stats, const std::string& where) {
  const Params params(op.params, values, where);
  const auto count = static_cast<int>(inputs.size());
  if (count < op.min_inputs || count > op.max_inputs) {
    const std::string wanted = op.min_inputs == op.max_inputs
                                   ? std::to_string(op.min_inputs)
                                   : fmt::format("{} to {}", op.min_inputs, op.max_inputs);
    throw UsageError("{}: {} takes {} checkpoints, {} are given", where, op.name, wanted, count);
  }
  Plan plan = op.make()->plan({.inputs = inputs, .params = params, .stats = stats});
  plan.record["op"] = op.name;
  plan.record["parameters"] = params.all();
  return plan;
}

}  // namespace cadre::reshape
