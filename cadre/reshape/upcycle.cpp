#include "cadre/reshape/upcycle.h"

#include <algorithm>
#include <charconv>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/reshape/expert_steps.h"
#include "cadre/reshape/mix_kernels.h"
#include "cadre/reshape/moe_config.h"
#include "cadre/reshape/prompt_router.h"

namespace cadre::reshape {
namespace {

using nlohmann::json;

bool is_feed_forward(Role role) {
  return role == Role::kGate || role == Role::kUp || role == Role::kDown;
}

/// The parameter that says where a tensor beside the experts comes from.
const char* class_of(Role role) {
  switch (role) {
    case Role::kQuery:
    case Role::kKey:
    case Role::kValue:
    case Role::kAttentionOutput:
    case Role::kQueryNorm:
    case Role::kKeyNorm:
      return "attention";
    case Role::kEmbedding:
    case Role::kHead:
      return "embeddings";
    default:
      return "norms";
  }
}

class Upcycle : public ReshapeOp {
 public:
  Plan plan(const PlanRequest& request) const override { return Planner(request).plan(); }

 private:
  class Planner {
   public:
    explicit Planner(const PlanRequest& request)
        : request_(request),
          params_(request.params),
          schema_(request.inputs[0]->schema()),
          count_(static_cast<int64_t>(request.inputs.size())) {}

    Plan plan() {
      check_alike();
      choose_experts();
      const int64_t inner = schema_.require(Role::kGate, 0).info.shape[0];
      const int64_t shared = params_.integer("shared");
      if (shared >= count_) throw_input("shared", shared);
      plan_.config_out = moe_config(schema_, params_.text("to"),
                                    {.experts = static_cast<int64_t>(experts_.size()),
                                     .used = params_.integer("used"),
                                     .inner = inner,
                                     .shared = shared < 0 ? 0 : 1},
                                    params_.where());
      type_ = plan_.config_out["model_type"].get<std::string>();
      const auto routers = prompt_routers();
      for (int64_t layer = 0; layer < schema_.layers(); ++layer) {
        add_layer(layer, shared);
        plan_.steps.push_back(router_step(
            layer, routers.empty() ? std::vector<float>() : routers[static_cast<size_t>(layer)]));
      }
      for (const SchemaTensor& tensor : schema_.tensors()) {
        if (!is_feed_forward(tensor.role)) plan_.steps.push_back(rest_step(tensor));
      }
      return std::move(plan_);
    }

   private:
    [[noreturn]] void throw_input(const std::string& key, int64_t value) const {
      throw UsageError("{}: {} is {}, but the inputs are 0 to {}", params_.where(), key, value,
                       count_ - 1);
    }

    void check_alike() const {
      for (int64_t i = 1; i < count_; ++i) {
        const Schema& other = request_.inputs[static_cast<size_t>(i)]->schema();
        for (const SchemaTensor& tensor : schema_.tensors()) {
          const SchemaTensor& twin = other.require(tensor.info.name);
          if (twin.info.shape == tensor.info.shape) continue;
          throw UsageError(
              "{}: tensor {} has the shape [{}], {} has [{}]: models of one shape only",
              other.where(), tensor.info.name, fmt::join(twin.info.shape, ", "), schema_.where(),
              fmt::join(tensor.info.shape, ", "));
        }
        if (other.tensors().size() != schema_.tensors().size()) {
          throw UsageError("{}: has {} tensors, {} has {}: models of one shape only", other.where(),
                           other.tensors().size(), schema_.where(), schema_.tensors().size());
        }
      }
    }

    /// The input that each expert comes from.
    void choose_experts() {
      const auto chosen = params_.numbers("experts");
      for (const double number : chosen) {
        const auto input = static_cast<int64_t>(number);
        if (input < 0 || input >= count_ || static_cast<double>(input) != number) {
          throw_input("experts", input);
        }
        experts_.push_back(static_cast<int>(input));
      }
      if (chosen.empty()) {
        for (int i = 0; i < count_; ++i) experts_.push_back(i);
      }
      const int64_t copies = params_.integer("copies");
      if (copies < 1 || copies > 1024) {
        throw UsageError("{}: copies is {}, must be from 1 to 1024", params_.where(), copies);
      }
      const std::vector<int> once = experts_;
      for (int64_t i = 1; i < copies; ++i) {
        experts_.insert(experts_.end(), once.begin(), once.end());
      }
    }

    void add_layer(int64_t layer, int64_t shared) {
      constexpr std::array<std::array<Role, 3>, 3> kRoles = {
          {{Role::kGate, Role::kExpertGate, Role::kSharedGate},
           {Role::kUp, Role::kExpertUp, Role::kSharedUp},
           {Role::kDown, Role::kExpertDown, Role::kSharedDown}}};
      for (const auto& [dense, routed, always] : kRoles) {
        const SchemaTensor& tensor = schema_.require(dense, layer);
        for (size_t e = 0; e < experts_.size(); ++e) {
          const auto number = static_cast<int64_t>(e);
          plan_.steps.push_back(expert_step(tensor, experts_[e], number, layer,
                                            tensor_name(type_, routed, layer, number)));
        }
        if (shared < 0) continue;
        plan_.steps.push_back(
            copy_step(tensor, static_cast<int>(shared), tensor_name(type_, always, layer)));
      }
    }

    /// Copies of one model may be told apart by noise: `noise` times the matrix's own deviation.
    Step expert_step(const SchemaTensor& tensor, int input, int64_t expert, int64_t layer,
                     const std::string& name) const {
      Step step = copy_step(tensor, input, name);
      step.out.front().dtype = tensor.info.dtype;
      const double noise = params_.number("noise");
      if (noise <= 0) return step;
      const auto seed = static_cast<uint64_t>(params_.integer("seed"));
      step.kernel = WholeKernel([=, role = static_cast<uint64_t>(tensor.role)](const Whole& whole) {
        double square = 0;
        for (const float value : whole.in[0]) square += double{value} * value;
        const double size = noise * std::sqrt(square / static_cast<double>(whole.in[0].size()));
        Random random(seed, {static_cast<uint64_t>(layer), static_cast<uint64_t>(expert), role});
        for (size_t i = 0; i < whole.in[0].size(); ++i) {
          whole.out[0][i] = static_cast<float>(whole.in[0][i] + size * random.normal());
        }
      });
      return step;
    }

    Step rest_step(const SchemaTensor& tensor) const {
      const char* kind = class_of(tensor.role);
      const std::string from = params_.text(kind);
      if (from != "average") {
        int input = -1;
        const auto [end, error] = std::from_chars(from.data(), from.data() + from.size(), input);
        if (error != std::errc() || end != from.data() + from.size() || input < 0 ||
            input >= count_) {
          throw UsageError("{}: {} is \"{}\", must be average or an input from 0 to {}",
                           params_.where(), kind, from, count_ - 1);
        }
        return copy_step(tensor, input);
      }
      if (count_ == 1) return copy_step(tensor, 0);
      Step step = {.out = {tensor.info},
                   .kernel = linear_kernel(std::vector<double>(static_cast<size_t>(count_), 1.0),
                                           Weights::kNormalized)};
      for (int i = 0; i < count_; ++i)
        step.in.push_back({.checkpoint = i, .name = tensor.info.name});
      return step;
    }

    std::vector<std::vector<float>> prompt_routers() const {
      const std::string how = params_.text("router");
      if (how != "hidden" && how != "cheap_embed") return {};
      const int64_t base = params_.integer("base");
      if (base < 0 || base >= count_) throw_input("base", base);
      return routers_from_prompts(request_.inputs[static_cast<size_t>(base)]->folder(), prompts(),
                                  how == "hidden" ? PromptView::kHidden : PromptView::kEmbedding);
    }

    std::vector<ExpertPrompts> prompts() const {
      std::vector<ExpertPrompts> all(experts_.size());
      const json &good = params_.any("prompts"), &bad = params_.any("negative_prompts");
      try {
        for (size_t e = 0; e < all.size(); ++e) {
          all[e].positive = good.at(e).get<std::vector<std::string>>();
          if (!bad.is_null()) all[e].negative = bad.at(e).get<std::vector<std::string>>();
        }
      } catch (const json::exception&) {
        throw UsageError("{}: prompts must be a list of texts for each of the {} experts",
                         params_.where(), experts_.size());
      }
      return all;
    }

    Step router_step(int64_t layer, std::vector<float> rows) const {
      const DType type = schema_.require(Role::kGate, layer).info.dtype;
      Step step = {.out = {{tensor_name(type_, Role::kRouter, layer),
                            type,
                            {static_cast<int64_t>(experts_.size()), schema_.hidden()}}}};
      const std::string how = params_.text("router");
      if (!rows.empty()) {
        step.kernel = WholeKernel([rows = std::move(rows)](const Whole& whole) {
          std::copy(rows.begin(), rows.end(), whole.out[0].begin());
        });
      } else if (how == "zero" || how == "random") {
        step.kernel = random_router(how == "zero" ? 0.0F : 0.02F, params_.integer("seed"), layer);
      } else {
        throw UsageError("{}: router is \"{}\", must be zero, random, hidden or cheap_embed",
                         params_.where(), how);
      }
      return step;
    }

    const PlanRequest& request_;
    const Params& params_;
    const Schema& schema_;
    int64_t count_;
    std::vector<int> experts_;
    std::string type_;
    Plan plan_;
  };
};

}  // namespace

OpInfo upcycle_op() {
  return {
      .name = "upcycle",
      .help = "Dense models of one shape become the experts of one model",
      .paper =
          "Sparse Upcycling, 2023; Branch-Train-MiX, 2024; BAM! Just Like That: Simple and "
          "Efficient Parameter Upcycling for Mixture of Experts, 2024",
      .min_inputs = 1,
      .max_inputs = 64,
      .params = {{"used", ParamType::kInteger, 2, "Experts that work on a token"},
                 {"experts", ParamType::kNumbers, json::array(),
                  "Inputs whose feed-forward layers become experts, from 0; default: all"},
                 {"copies", ParamType::kInteger, 1, "Experts from each of them"},
                 {"shared", ParamType::kInteger, -1,
                  "Input whose feed-forward layers always work; -1 = none"},
                 {"attention", ParamType::kText, "average", "average, or the input they come from"},
                 {"norms", ParamType::kText, "average", "average, or the input they come from"},
                 {"embeddings", ParamType::kText, "average",
                  "average, or the input they come from"},
                 {"router", ParamType::kText, "random",
                  "zero, random, hidden (of prompts, where the router looks) or cheap_embed"},
                 {"base", ParamType::kInteger, 0, "Input that reads the prompts"},
                 {"prompts", ParamType::kAny, nullptr, "For each expert a list of texts"},
                 {"negative_prompts", ParamType::kAny, nullptr, "The same, of what it is not for"},
                 {"noise", ParamType::kNumber, 0.0,
                  "Noise on every expert's weights, as a share of their size"},
                 {"to", ParamType::kText, "",
                  "deepseek, mixtral or qwen3_moe; default by the inputs"},
                 {"seed", ParamType::kInteger, 0, "Of router and noise"}},
      .make = [] { return std::unique_ptr<ReshapeOp>(std::make_unique<Upcycle>()); }};
}

}  // namespace cadre::reshape
