#include "cadre/routing/routers.h"

#include <array>

#include "cadre/base/error.h"
#include "cadre/routing/expert_choice_router.h"
#include "cadre/routing/hash_router.h"
#include "cadre/routing/noisy_top_k_router.h"
#include "cadre/routing/null_experts_router.h"
#include "cadre/routing/patch_choice_router.h"
#include "cadre/routing/random_router.h"
#include "cadre/routing/recurrent_router.h"
#include "cadre/routing/sequence_router.h"
#include "cadre/routing/stochastic_router.h"
#include "cadre/routing/top_k_router.h"
#include "cadre/routing/top_p_router.h"
#include "cadre/routing/transport_router.h"

namespace cadre {
namespace {

/// `shape.layers` routers that know nothing of each other.
template <class R, class Options>
Routers alike(const RouterShape& shape, const Options& options) {
  Routers routers;
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    routers.push_back(std::make_shared<R>(shape.hidden, shape.experts, options));
  }
  return routers;
}

Weights weights_of(const RouterConfig& config) {
  return config.text("weights") == "raw" ? Weights::kRaw : Weights::kNormalized;
}

Routers top_k(const RouterConfig& config, const RouterShape& shape) {
  TopK options = {
      .k = slots_of(config, shape),
      .squash = config.text("squash") == "sigmoid" ? Squash::kSigmoid : Squash::kSoftmax,
      .weights = weights_of(config),
      .scale = config.real("scale"),
      .groups = config.integer("groups"),
      .groups_used = config.integer("groups_used"),
      .bias_update = config.real("bias_update"),
      .init_std = shape.init_std};
  if (config.real("capacity_factor") > 0) options.capacity_factor = config.real("capacity_factor");
  return alike<TopKRouter>(shape, options);
}

Routers top_p(const RouterConfig& config, const RouterShape& shape) {
  return alike<TopPRouter>(
      shape,
      TopP{.p = config.real("p"), .weights = weights_of(config), .init_std = shape.init_std});
}

Routers null_experts(const RouterConfig& config, const RouterShape& shape) {
  const bool all = config.text("weights") == "all_slots";
  return alike<NullExpertsRouter>(
      shape, NullExperts{.nulls = config.integer("nulls"),
                         .k = slots_of(config, shape),
                         .norm = all ? NullNorm::kAllSlots : NullNorm::kTrueOnly,
                         .init_std = shape.init_std});
}

Routers smoe_dropout(const RouterConfig& config, const RouterShape& shape) {
  const int64_t first = config.integer("k_min"), last = config.integer("k_max");
  return alike<RandomRouter>(
      shape, RandomExperts{.schedule = {.form = schedule_named(config.text("schedule")),
                                        .first = first ? first : shape.experts_per_token,
                                        .last = last ? last : shape.experts},
                           .k = config.integer("k"),
                           .gate_std = config.real("gate_std")});
}

Routers noisy_top_k(const RouterConfig& config, const RouterShape& shape) {
  const bool learned = config.text("noise_form") == "learned";
  return alike<NoisyTopKRouter>(
      shape, NoisyTopK{.k = slots_of(config, shape),
                       .noise = learned ? RouterNoise::kLearned : RouterNoise::kFixed,
                       .scale = config.real("noise"),
                       .init_std = shape.init_std});
}

Routers expert_choice(const RouterConfig& config, const RouterShape& shape) {
  const bool by_sequence = config.text("scope") == "sequence";
  return alike<ExpertChoiceRouter>(
      shape, ExpertChoice{.capacity_factor = config.real("capacity_factor"),
                          .scope = by_sequence ? ChoiceScope::kSequence : ChoiceScope::kBatch,
                          .noise = config.real("noise"),
                          .init_std = shape.init_std});
}

/// A table of its own for each layer.
Routers hash(const RouterConfig&, const RouterShape& shape) {
  Routers routers;
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const Hash options = {.vocabulary = shape.vocabulary, .seed = static_cast<uint64_t>(layer)};
    routers.push_back(std::make_shared<HashRouter>(shape.experts, options));
  }
  return routers;
}

Routers sequence(const RouterConfig& config, const RouterShape& shape) {
  return alike<SequenceRouter>(shape, SequenceChoice{.k = slots_of(config, shape),
                                                     .length = config.integer("length"),
                                                     .weights = weights_of(config),
                                                     .scale = config.real("scale"),
                                                     .init_std = shape.init_std});
}

DrawScope draw_scope(const std::string& name) {
  if (name == "batch") return DrawScope::kBatch;
  return name == "sequence" ? DrawScope::kSequence : DrawScope::kToken;
}

Routers stochastic(const RouterConfig& config, const RouterShape& shape) {
  Routers routers;
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    routers.push_back(std::make_shared<StochasticRouter>(
        shape.experts, StochasticExperts{.train = draw_scope(config.text("train_scope")),
                                         .eval = draw_scope(config.text("eval_scope"))}));
  }
  return routers;
}

Memory memory_named(const std::string& name) {
  if (name == "full") return Memory::kFull;
  if (name == "detached") return Memory::kDetached;
  return name == "none" ? Memory::kNone : Memory::kResidual;
}

/// The lowest layer's router makes the cell that all share.
Routers recurrent(const RouterConfig& config, const RouterShape& shape) {
  const Recurrent options = {
      .k = slots_of(config, shape),
      .width = config.integer("width"),
      .cell = config.text("cell") == "gru" ? CellKind::kGru : CellKind::kTanh,
      .memory = memory_named(config.text("memory")),
      .residual = config.real("residual"),
      .weights = weights_of(config),
      .init_std = shape.init_std};
  Routers routers;
  std::shared_ptr<RecurrentCell> cell;
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const auto router =
        std::make_shared<RecurrentRouter>(shape.hidden, shape.experts, options, cell);
    cell = router->cell;
    routers.push_back(router);
  }
  return routers;
}

Routers patch_choice(const RouterConfig& config, const RouterShape& shape) {
  const bool pads = config.text("short_lists") == "pad";
  return alike<PatchChoiceRouter>(
      shape, PatchChoice{.k = slots_of(config, shape),
                         .patch = config.integer("patch"),
                         .share = config.real("share"),
                         .short_lists = pads ? ShortLists::kPad : ShortLists::kDrop,
                         .init_std = shape.init_std});
}

Routers sparse_ot(const RouterConfig& config, const RouterShape& shape) {
  const auto is = [&](const char* option, const char* value) {
    return config.text(option) == value;
  };
  return alike<TransportRouter>(
      shape,
      SparseTransport{
          .axis = is("axis", "token") ? TransportAxis::kToken : TransportAxis::kExpert,
          .capacity_factor = config.real("capacity_factor"),
          .k = slots_of(config, shape),
          .gamma = config.real("gamma"),
          .combine = is("combine", "plan") ? TransportCombine::kPlan : TransportCombine::kSoftmax,
          .start = is("start", "exact") ? TransportStart::kExact : TransportStart::kZero,
          .steps = config.integer("steps"),
          .learning_rate = config.real("learning_rate"),
          .scope = is("scope", "sequence") ? ChoiceScope::kSequence : ChoiceScope::kBatch,
          .init_std = shape.init_std});
}

constexpr std::array kFactories = {
    RouterFactory{"top_k", top_k},
    RouterFactory{"top_p", top_p},
    RouterFactory{"null_experts", null_experts},
    RouterFactory{"smoe_dropout", smoe_dropout},
    RouterFactory{"noisy_top_k", noisy_top_k},
    RouterFactory{"expert_choice", expert_choice},
    RouterFactory{"hash", hash},
    RouterFactory{"sequence", sequence},
    RouterFactory{"stochastic", stochastic},
    RouterFactory{"recurrent", recurrent},
    RouterFactory{"patch_choice", patch_choice},
    RouterFactory{"sparse_ot", sparse_ot},
};

}  // namespace

std::span<const RouterFactory> router_factories() { return kFactories; }

Routers make_routers(const RouterConfig& config, const RouterShape& shape) {
  check_router(config, shape);
  for (const RouterFactory& factory : kFactories) {
    if (factory.kind == config.kind) return factory.make(config, shape);
  }
  throw Error("no factory makes routers of kind '{}'", config.kind);
}

std::vector<std::pair<std::string, torch::Tensor>> checkpoint_tensors(const Router& router,
                                                                      const RouterConfig& config,
                                                                      const RouterShape& shape,
                                                                      int64_t index) {
  const auto parameters = router.named_parameters();
  const auto buffers = router.named_buffers();
  std::vector<std::pair<std::string, torch::Tensor>> tensors;
  for (const auto& [name, size] : router_kind_named(config.kind).tensors(config, shape, index)) {
    const torch::Tensor* found = parameters.find(name);
    if (!found) found = buffers.find(name);
    if (!found) throw Error("router {} of layer {} has no tensor {}", config.kind, index, name);
    tensors.emplace_back(name, *found);
  }
  return tensors;
}

}  // namespace cadre
