#include "cadre/engine/router_kinds.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/random.h"
#include "cadre/formats/router_kinds.h"

namespace cadre::engine {
namespace {

RouterShape shape_of(const ModelSpec& spec) {
  return {.hidden = spec.hidden,
          .experts = spec.experts,
          .experts_per_token = spec.experts_used,
          .vocabulary = spec.vocabulary,
          .layers = spec.layers - spec.leading_dense_layers};
}

bool is_normalized(const RouterConfig& config) { return config.text("weights") == "normalized"; }

void top_k(const RouterConfig& config, ModelSpec& spec) {
  const bool sigmoid = config.text("squash") == "sigmoid";
  spec.router = {.gating = sigmoid ? Gating::kSigmoid : Gating::kSoftmax,
                 .normalize = is_normalized(config),
                 .scale = static_cast<float>(config.real("scale")),
                 .groups = config.integer("groups"),
                 .groups_used = config.integer("groups_used"),
                 .slots = slots_of(config, shape_of(spec))};
  spec.experts_used = spec.router.slots;
}

void top_p(const RouterConfig& config, ModelSpec& spec) {
  spec.router = {.normalize = is_normalized(config),
                 .selection = Selection::kPrefix,
                 .p = static_cast<float>(config.real("p"))};
  spec.experts_used = spec.experts;
}

void null_experts(const RouterConfig& config, ModelSpec& spec) {
  spec.router = {.normalize = true,
                 .slots = slots_of(config, shape_of(spec)),
                 .nulls = config.integer("nulls"),
                 .keeps_nulls_share = config.text("weights") == "all_slots"};
  spec.experts_used = std::min(spec.router.slots, spec.experts);
}

void smoe_dropout(const RouterConfig& config, ModelSpec& spec) {
  const int64_t last = config.integer("k_max") ? config.integer("k_max") : spec.experts;
  const int64_t k = config.integer("k") ? config.integer("k") : last;
  spec.router = {.gating = Gating::kSoftmaxOfSelected, .slots = k};
  spec.experts_used = k;
}

/// Without noise: that is for training.
void noisy_top_k(const RouterConfig& config, ModelSpec& spec) {
  const bool learned = config.text("noise_form") == "learned";
  spec.router = {.gating = learned ? Gating::kSoftmaxOfSelected : Gating::kSoftmax,
                 .slots = slots_of(config, shape_of(spec))};
  spec.experts_used = spec.router.slots;
}

void table(const RouterConfig& /*config*/, ModelSpec& spec) {
  spec.router = {.scorer = Scorer::kTable, .slots = 1};
  spec.experts_used = 1;
}

void stochastic(const RouterConfig& config, ModelSpec& spec) {
  if (config.text("eval_scope") == "token") {
    throw UsageError(
        "router stochastic: a draw for each token does not run here; set eval_scope "
        "to sequence");
  }
  table(config, spec);
}

void recurrent(const RouterConfig& config, ModelSpec& spec) {
  if (config.text("memory") == "residual") {
    throw UsageError("router recurrent: memory residual does not run here; use cadre generate");
  }
  spec.router = {.scorer = Scorer::kRecurrent,
                 .state_width = config.integer("width"),
                 .normalize = is_normalized(config),
                 .slots = slots_of(config, shape_of(spec))};
  spec.experts_used = spec.router.slots;
}

/// Routers that look ahead choose so when they generate.
void plain_top_k(const RouterConfig& /*config*/, ModelSpec& spec) { spec.router = {}; }

struct Entry {
  std::string_view kind;
  void (*apply)(const RouterConfig& config, ModelSpec& spec);
};
constexpr std::array kEntries = {
    Entry{"top_k", top_k},
    Entry{"top_p", top_p},
    Entry{"null_experts", null_experts},
    Entry{"smoe_dropout", smoe_dropout},
    Entry{"noisy_top_k", noisy_top_k},
    Entry{"hash", table},
    Entry{"stochastic", stochastic},
    Entry{"recurrent", recurrent},
};

}  // namespace

void apply_router(const RouterConfig& config, ModelSpec& spec) {
  spec.router_config = config;
  if (config.is_standard()) return;
  check_router(config, shape_of(spec));
  check_decoding(config);
  if (is_fallback(config)) return plain_top_k(config, spec);
  for (const Entry& entry : kEntries) {
    if (entry.kind == config.kind) return entry.apply(config, spec);
  }
  throw UsageError("router {} does not run here yet; use cadre generate", config.kind);
}

bool is_fallback(const RouterConfig& config) {
  return !config.is_standard() && !router_kind_named(config.kind).causal;
}

int32_t drawn_expert(int64_t layer, int64_t experts) {
  constexpr uint64_t kDrawStream = 0x64726177;  // as cadre/routing/stochastic_router.cpp
  Random random(/*seed=*/0, {kDrawStream, /*step=*/0, static_cast<uint64_t>(layer), /*draw=*/0});
  return static_cast<int32_t>(random.below(static_cast<uint64_t>(experts)));
}

void read_router(const nlohmann::json& config, const std::string& where, ModelSpec& spec) {
  const auto own = config.find("cadre");
  if (own == config.end() || !own->is_object() || !own->contains("router")) return;
  const std::string place = where + ": \"cadre\": \"router\"";
  const RouterConfig router = parse_router_config((*own)["router"], place);
  if (spec.experts == 0) throw FormatError("{}: the model has no experts", place);
  try {
    apply_router(router, spec);
  } catch (const UsageError& error) {
    throw FormatError("{}: {}", place, error.what());
  }
}

}  // namespace cadre::engine
