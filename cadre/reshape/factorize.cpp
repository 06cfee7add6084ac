#include "cadre/reshape/factorize.h"

#include <algorithm>
#include <numeric>

#include "cadre/base/error.h"
#include "cadre/formats/file.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/expert_steps.h"
#include "cadre/reshape/layer_stats.h"
#include "cadre/reshape/moe_config.h"
#include "cadre/reshape/neuron_partition.h"

namespace cadre::reshape {
namespace {

/// Which neurons of the dense layer each expert has, for `fuse`.
constexpr const char* kOrderFile = "cadre_neurons.json";

/// Neurons of one layer's experts, all equally many.
using Slices = std::vector<std::vector<int32_t>>;

Slices slices_of(const NeuronPartition& partition) {
  Slices slices;
  for (int64_t e = 0; e < partition.experts; ++e) {
    const auto neurons = partition.of(e);
    slices.emplace_back(neurons.begin(), neurons.end());
  }
  return slices;
}

class Factorize : public ReshapeOp {
 public:
  Plan plan(const PlanRequest& request) const override { return Planner(request).plan(); }

 private:
  class Planner {
   public:
    explicit Planner(const PlanRequest& request)
        : request_(request),
          params_(request.params),
          schema_(request.inputs[0]->schema()),
          experts_(params_.integer("experts")),
          inner_(schema_.require(Role::kGate, 0).info.shape[0]) {
      if (experts_ < 1) {
        throw UsageError("{}: experts is {}, must be at least 1", params_.where(), experts_);
      }
    }

    Plan plan() {
      const bool domains = params_.text("partition") == "domains";
      if (!domains) partition_contiguous(inner_, experts_);  // checks that it divides
      width_ = domains ? static_cast<int64_t>(params_.number("rate") * static_cast<double>(inner_))
                       : inner_ / experts_;
      const double scale = params_.number("scale");
      scale_ = scale > 0 ? scale : domains ? 1 : static_cast<double>(experts_);
      plan_.config_out = moe_config(
          schema_, params_.text("to"),
          {.experts = experts_, .used = params_.integer("used"), .inner = width_}, params_.where());
      type_ = plan_.config_out["model_type"].get<std::string>();
      for (int64_t layer = 0; layer < schema_.layers(); ++layer) add_layer(layer);
      for (const SchemaTensor& tensor : schema_.tensors()) {
        const Role role = tensor.role;
        if (role == Role::kGate || role == Role::kUp || role == Role::kDown) continue;
        plan_.steps.push_back(copy_step(tensor, 0));
      }
      if (!domains) {
        plan_.files[kOrderFile] =
            nlohmann::json{{"scale", scale_}, {"layers", orders_}}.dump() + "\n";
      }
      return std::move(plan_);
    }

   private:
    void add_layer(int64_t layer) {
      const Slices slices = choose(layer);
      orders_.push_back(slices);
      for (const auto& [from, to] :
           {std::pair(Role::kGate, Role::kExpertGate), std::pair(Role::kUp, Role::kExpertUp)}) {
        const SchemaTensor& tensor = schema_.require(from, layer);
        for (int64_t e = 0; e < experts_; ++e) {
          plan_.steps.push_back(copy_rows_step(tensor, 0, slices[static_cast<size_t>(e)],
                                               tensor_name(type_, to, layer, e)));
        }
      }
      plan_.steps.push_back(down_step(layer, slices));
      plan_.steps.push_back(router_step(layer, slices));
    }

    Slices choose(int64_t layer) const {
      const std::string how = params_.text("partition");
      const auto seed =
          static_cast<uint64_t>(params_.integer("seed")) * 1000 + static_cast<uint64_t>(layer);
      if (how == "contiguous") return slices_of(partition_contiguous(inner_, experts_));
      if (how == "random") return slices_of(partition_random(inner_, experts_, seed));
      if (how == "kmeans") {
        const auto rows = read_values(*request_.inputs[0], schema_.require(Role::kGate, layer));
        return slices_of(partition_kmeans(inner_, schema_.hidden(), rows.data(), experts_, seed));
      }
      if (how == "activations") {
        const StatsIndex& stats = need_stats(request_, "partition activations");
        const std::string name = stat_name(layer, kFeatures);
        const auto shape = stats.shape(name);
        const auto features = stats.values(name);
        if (shape.size() != 2 || shape[0] != inner_) {
          throw UsageError("{}: statistic {} is of another model", params_.where(), name);
        }
        return slices_of(partition_kmeans(inner_, shape[1], features.data(), experts_, seed));
      }
      if (how == "domains") return domains_of(layer);
      throw UsageError(
          "{}: partition is \"{}\", must be contiguous, random, kmeans, activations or domains",
          params_.where(), how);
    }

    Slices domains_of(int64_t layer) const {
      const StatsIndex& stats = need_stats(request_, "partition domains");
      const auto activity = layer_stat(stats, layer, kActivity, {experts_, inner_});
      DomainMasks masks =
          mask_by_activity(experts_, inner_, activity.data(), params_.number("rate"));
      for (auto& mask : masks.specific) {
        mask.insert(mask.end(), masks.shared.begin(), masks.shared.end());
        std::sort(mask.begin(), mask.end());
      }
      return masks.specific;
    }

    Step down_step(int64_t layer, const Slices& slices) const {
      const SchemaTensor& down = schema_.require(Role::kDown, layer);
      Step step = {.in = {{.checkpoint = 0, .name = down.info.name}}};
      for (int64_t e = 0; e < experts_; ++e) {
        step.out.push_back({tensor_name(type_, Role::kExpertDown, layer, e),
                            down.info.dtype,
                            {schema_.hidden(), width_}});
      }
      step.kernel = WholeKernel(
          [slices, inner = inner_, scale = scale_, rows = schema_.hidden()](const Whole& whole) {
            for (size_t e = 0; e < slices.size(); ++e) {
              float* out = whole.out[e].data();
              for (int64_t r = 0; r < rows; ++r) {
                const float* in = whole.in[0].data() + r * inner;
                for (const int32_t neuron : slices[e])
                  *out++ = static_cast<float>(scale * in[neuron]);
              }
            }
          });
      return step;
    }

    Step router_step(int64_t layer, const Slices& slices) const {
      const SchemaTensor& gate = schema_.require(Role::kGate, layer);
      const int64_t hidden = schema_.hidden();
      Step step = {
          .out = {{tensor_name(type_, Role::kRouter, layer), gate.info.dtype, {experts_, hidden}}}};
      const std::string how = params_.text("router");
      if (how == "zero" || how == "random") {
        step.kernel = random_router(how == "zero" ? 0.0F : 0.02F, params_.integer("seed"), layer);
      } else if (how == "centroid") {
        step.in = {{.checkpoint = 0, .name = gate.info.name}};
        step.kernel = WholeKernel([slices, hidden](const Whole& whole) {
          for (size_t e = 0; e < slices.size(); ++e) {
            float* out = whole.out[0].data() + static_cast<int64_t>(e) * hidden;
            std::fill_n(out, hidden, 0.0F);
            for (const int32_t neuron : slices[e]) {
              const float* row = whole.in[0].data() + neuron * hidden;
              for (int64_t c = 0; c < hidden; ++c) {
                out[c] += row[c] / static_cast<float>(slices[e].size());
              }
            }
          }
        });
      } else {
        throw UsageError("{}: router is \"{}\", must be zero, random or centroid", params_.where(),
                         how);
      }
      return step;
    }

    const PlanRequest& request_;
    const Params& params_;
    const Schema& schema_;
    int64_t experts_, inner_, width_ = 0;
    double scale_ = 1;
    std::string type_;
    nlohmann::json orders_ = nlohmann::json::array();
    Plan plan_;
  };
};

/// What factorize wrote down, checked against the schema.
struct Order {
  double scale = 1;
  std::vector<Slices> layers;
};

Order read_order(const Checkpoint& checkpoint) {
  const auto path = checkpoint.folder() / kOrderFile;
  const Schema& schema = checkpoint.schema();
  Order order;
  try {
    const nlohmann::json json = parse_json(read_file(path), path.string());
    order = {json.at("scale").get<double>(), json.at("layers").get<std::vector<Slices>>()};
  } catch (const nlohmann::json::exception&) {
    throw FormatError("{}: is not what cadre factorize writes", path.string());
  }
  bool fits = order.scale != 0 && static_cast<int64_t>(order.layers.size()) == schema.layers();
  for (int64_t layer = 0; fits && layer < schema.layers(); ++layer) {
    std::vector<int32_t> all;
    for (const auto& slice : order.layers[static_cast<size_t>(layer)]) {
      const auto shape = schema.expert_shape(Role::kExpertGate, layer, 0);
      fits = fits && static_cast<int64_t>(slice.size()) == shape[0];
      all.insert(all.end(), slice.begin(), slice.end());
    }
    fits = fits && static_cast<int64_t>(order.layers[static_cast<size_t>(layer)].size()) ==
                       schema.experts_of(layer);
    std::sort(all.begin(), all.end());
    for (size_t i = 0; i < all.size(); ++i) fits = fits && all[i] == static_cast<int32_t>(i);
  }
  if (!fits) {
    throw FormatError("{}: does not fit the experts of {}", path.string(), schema.where());
  }
  return order;
}

nlohmann::json dense_config(const Schema& schema, int64_t inner) {
  nlohmann::json config = schema.config();
  const bool qwen = schema.model_type() == "qwen3_moe";
  for (const char* key :
       {"n_routed_experts", "num_local_experts", "num_experts", "num_experts_per_tok",
        "moe_intermediate_size", "n_shared_experts", "first_k_dense_replace", "moe_layer_freq",
        "scoring_func", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers"}) {
    config.erase(key);
  }
  config["model_type"] = qwen ? "qwen3" : "llama";
  config["architectures"] = {qwen ? "Qwen3ForCausalLM" : "LlamaForCausalLM"};
  config["intermediate_size"] = inner;
  return config;
}

class Fuse : public ReshapeOp {
 public:
  Plan plan(const PlanRequest& request) const override {
    const Checkpoint& input = *request.inputs[0];
    const Schema& schema = input.schema();
    expert_layers(schema);
    const Order order = read_order(input);
    const auto shape = schema.expert_shape(Role::kExpertGate, 0, 0);
    const int64_t inner = shape[0] * schema.experts_of(0);
    Plan plan = {.config_out = dense_config(schema, inner)};
    const std::string type = plan.config_out["model_type"].get<std::string>();
    for (int64_t layer = 0; layer < schema.layers(); ++layer) {
      const Slices& slices = order.layers[static_cast<size_t>(layer)];
      for (const auto& [from, to] :
           {std::pair(Role::kExpertGate, Role::kGate), std::pair(Role::kExpertUp, Role::kUp),
            std::pair(Role::kExpertDown, Role::kDown)}) {
        plan.steps.push_back(
            fuse_step(schema, from, layer, slices, order.scale, tensor_name(type, to, layer)));
      }
    }
    for (const SchemaTensor& tensor : schema.tensors()) {
      if (is_routed_expert(tensor) || tensor.role == Role::kRouter) continue;
      plan.steps.push_back(copy_step(tensor, 0));
    }
    return plan;
  }

 private:
  static Step fuse_step(const Schema& schema, Role from, int64_t layer, const Slices& slices,
                        double scale, const std::string& name) {
    const bool down = from == Role::kExpertDown;
    const auto part = schema.expert_shape(from, layer, 0);
    const auto width = static_cast<int64_t>(slices[0].size());
    const int64_t inner = width * static_cast<int64_t>(slices.size());
    const int64_t hidden = down ? part[0] : part[1];
    Step step = {.out = {{name, expert_dtype(schema, from, layer, 0),
                          down ? std::vector<int64_t>{hidden, inner}
                               : std::vector<int64_t>{inner, hidden}}}};
    for (size_t e = 0; e < slices.size(); ++e) {
      step.in.push_back(schema.expert_matrix(from, layer, static_cast<int64_t>(e)));
    }
    step.kernel = WholeKernel([=](const Whole& whole) {
      for (size_t e = 0; e < slices.size(); ++e) {
        for (int64_t i = 0; i < width; ++i) {
          const int64_t neuron = slices[e][static_cast<size_t>(i)];
          for (int64_t c = 0; c < hidden; ++c) {
            const auto to = static_cast<size_t>(down ? c * inner + neuron : neuron * hidden + c);
            const auto at = static_cast<size_t>(down ? c * width + i : i * hidden + c);
            whole.out[0][to] = down ? static_cast<float>(whole.in[e][at] / scale) : whole.in[e][at];
          }
        }
      }
    });
    return step;
  }
};

}  // namespace

OpInfo factorize_op() {
  return {.name = "factorize",
          .help = "Cut a dense model's feed-forward layers into experts",
          .paper =
              "FactorLLM: Factorizing Knowledge via Mixture of Experts for Large Language Models, "
              "2024; Read-ME: Refactorizing LLMs as Router-Decoupled Mixture of Experts, 2024",
          .min_inputs = 1,
          .max_inputs = 1,
          .params =
              {{"experts", ParamType::kInteger, 4, "Experts a layer"},
               {"used", ParamType::kInteger, 2, "Experts that work on a token"},
               {"partition", ParamType::kText, "contiguous",
                "contiguous, random, kmeans (of gate rows), activations (of neurons that work "
                "together), domains (one expert a calibration text, overlapping)"},
               {"rate", ParamType::kNumber, 0.5, "Share of neurons a domain keeps"},
               {"router", ParamType::kText, "zero",
                "zero (all experts at work are the dense model), random, centroid (mean gate row)"},
               {"scale", ParamType::kNumber, 0.0,
                "Factor on the experts' outputs; 0 = their number (1 for domains)"},
               {"to", ParamType::kText, "", "deepseek, mixtral or qwen3_moe; default by the input"},
               {"seed", ParamType::kInteger, 0, "Of random choices"}},
          .make = [] { return std::unique_ptr<ReshapeOp>(std::make_unique<Factorize>()); }};
}

OpInfo fuse_op() {
  return {.name = "fuse",
          .help = "A factorized model's experts as one dense layer again",
          .paper = "",
          .min_inputs = 1,
          .max_inputs = 1,
          .params = {},
          .make = [] { return std::unique_ptr<ReshapeOp>(std::make_unique<Fuse>()); }};
}

}  // namespace cadre::reshape
