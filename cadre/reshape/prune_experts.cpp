#include "cadre/reshape/prune_experts.h"

#include <algorithm>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/reshape/expert_steps.h"
#include "cadre/reshape/layer_stats.h"

namespace cadre::reshape {
namespace {

const char* statistic_of(const Params& params) {
  const std::string by = params.text("by");
  if (by == "hits") return kUsage;
  if (by == "reach") return kReach;
  if (by == "loss") return kContribution;
  throw UsageError("{}: by is \"{}\", must be hits, reach or loss", params.where(), by);
}

/// The `count` largest, rising; the lower among equals.
std::vector<int32_t> largest(const std::vector<double>& values, int64_t count) {
  std::vector<int32_t> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)];
  });
  order.resize(static_cast<size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

bool is_router_row(const SchemaTensor& tensor) {
  return tensor.role == Role::kRouter || tensor.role == Role::kRouterBias;
}

class PruneExperts : public ReshapeOp {
 public:
  Plan plan(const PlanRequest& request) const override {
    const Schema& schema = request.inputs[0]->schema();
    const int64_t experts = schema.experts(), kept = request.params.integer("experts");
    check(schema, kept, request.params.where());
    const char* statistic = statistic_of(request.params);
    const StatsIndex& stats = need_stats(request, "prune_experts");
    Plan plan = {.config_out = schema.config()};
    set_expert_count(plan.config_out, kept, schema.where());
    std::map<int64_t, std::vector<int32_t>> kept_of;
    for (const int64_t layer : expert_layers(schema)) {
      kept_of[layer] = largest(layer_stat(stats, layer, statistic, {experts}), kept);
      for (const Role role : kExpertRoles) {
        for (int64_t e = 0; e < kept; ++e) {
          plan.steps.push_back(
              copy_expert_step(schema, role, layer, kept_of[layer][static_cast<size_t>(e)], e));
        }
      }
    }
    for (const SchemaTensor& tensor : schema.tensors()) {
      if (is_routed_expert(tensor)) continue;
      const bool rows = is_router_row(tensor) && kept_of.contains(tensor.layer);
      plan.steps.push_back(rows ? copy_rows_step(tensor, 0, kept_of[tensor.layer], tensor.info.name)
                                : copy_step(tensor, 0));
    }
    return plan;
  }

 private:
  static void check(const Schema& schema, int64_t kept, const std::string& where) {
    for (const int64_t layer : expert_layers(schema)) {
      if (schema.experts_of(layer) == schema.experts()) continue;
      throw UsageError("{}: layer {} stores {} of {} experts: prune before merging", schema.where(),
                       layer, schema.experts_of(layer), schema.experts());
    }
    if (kept < 1 || kept > schema.experts()) {
      throw UsageError("{}: experts is {}, must be from 1 to {}", where, kept, schema.experts());
    }
    const auto& config = schema.config();
    const auto groups = config.find("n_group");
    if (groups != config.end() && groups->is_number_integer() && groups->get<int64_t>() > 1) {
      throw UsageError(
          "{}: its router chooses among groups of experts, which must stay equal: "
          "merge_experts keeps them",
          schema.where());
    }
  }
};

}  // namespace

OpInfo prune_experts_op() {
  return {.name = "prune_experts",
          .help = "Drop the experts that matter least, and their rows of the router",
          .paper = "",
          .min_inputs = 1,
          .max_inputs = 1,
          .params = {{"experts", ParamType::kInteger, nullptr, "Experts a layer keeps"},
                     {"by", ParamType::kText, "loss",
                      "What makes an expert matter: hits (choices), reach (router weight), loss "
                      "(its weighted output)"}},
          .make = [] { return std::unique_ptr<ReshapeOp>(std::make_unique<PruneExperts>()); }};
}

}  // namespace cadre::reshape
