#include "cadre/formats/router_kinds.h"

#include <algorithm>
#include <array>

#include "cadre/base/error.h"
#include "cadre/base/text.h"

namespace cadre {
namespace {

/// Most ids a routing can tell apart, true and null experts together.
constexpr int64_t kMaxIds = 1 << 16;

constexpr RouterOption kSlots = {
    .name = "k",
    .fallback = int64_t{0},
    .help = "experts a token; not given = the model's experts per token",
    .range = {.low = 1, .high = kMaxIds}};
constexpr RouterOption kWeights = {.name = "weights",
                                   .fallback = "normalized",
                                   .help =
                                       "the chosen experts' probabilities as they are, or "
                                       "divided by their sum",
                                   .choices = "raw|normalized"};

void check_slots(const RouterConfig& config, int64_t k, int64_t most, const char* what) {
  if (k >= 1 && k <= most) return;
  throw UsageError("router {}: k is {}, must be from 1 to {}, the {}", config.kind, k, most, what);
}

[[maybe_unused]] void check_k(const RouterConfig& config, const RouterShape& shape) {
  check_slots(config, slots_of(config, shape), shape.experts, "experts");
}

/// The one matrix of most routers.
std::vector<RouterTensor> one_matrix(const RouterConfig&, const RouterShape& shape, int64_t) {
  return {{"weight", {shape.experts, shape.hidden}}};
}

// --- top_k -------------------------------------------------------------------------------------

constexpr std::array kTopKOptions = {
    kSlots,
    RouterOption{.name = "squash",
                 .fallback = "softmax",
                 .help = "what makes scores of logits",
                 .choices = "softmax|sigmoid"},
    kWeights,
    RouterOption{.name = "scale",
                 .fallback = 1.0,
                 .help = "factor on the weights (DeepSeek-V3: 2.5)",
                 .range = {.low = 0, .open = true}},
    RouterOption{.name = "groups",
                 .fallback = int64_t{1},
                 .help = "experts stand in this many groups of equal size",
                 .range = {.low = 1, .high = kMaxIds}},
    RouterOption{.name = "groups_used",
                 .fallback = int64_t{1},
                 .help = "a token's experts come from its best so many groups",
                 .range = {.low = 1, .high = kMaxIds}},
    RouterOption{.name = "bias_update",
                 .fallback = 0.0,
                 .help = "above 0: balance by a selection bias that moves so much a step (0.001)",
                 .range = {.low = 0, .high = 1}},
    RouterOption{.name = "capacity_factor",
                 .fallback = 0.0,
                 .help = "above 0: an expert takes at most so many times its fair share of a batch",
                 .range = {.low = 0, .high = kMaxIds}},
};

std::vector<RouterTensor> top_k_tensors(const RouterConfig& config, const RouterShape& shape,
                                        int64_t) {
  std::vector<RouterTensor> tensors = {{"weight", {shape.experts, shape.hidden}}};
  if (config.real("bias_update") > 0) {
    tensors.push_back({"e_score_correction_bias", {shape.experts}});
  }
  return tensors;
}

void check_top_k(const RouterConfig& config, const RouterShape& shape) {
  const int64_t groups = config.integer("groups"), used = config.integer("groups_used");
  if (shape.experts % groups != 0) {
    throw UsageError("router top_k: {} experts do not divide into {} groups", shape.experts,
                     groups);
  }
  if (used > groups) {
    throw UsageError("router top_k: groups_used is {}, must be from 1 to {}", used, groups);
  }
  check_slots(config, slots_of(config, shape), shape.experts / groups * used,
              "experts it may choose from");
}

// --- top_p -------------------------------------------------------------------------------------

constexpr std::array kTopPOptions = {
    RouterOption{.name = "p",
                 .fallback = 0.4,
                 .help = "experts are taken until their probabilities pass this sum",
                 .range = {.low = 0, .high = 1, .open = true}},
    RouterOption{.name = "weights",
                 .fallback = "raw",
                 .help = "the paper's raw probabilities, or divided by their sum",
                 .choices = "raw|normalized"},
};

// --- null_experts ------------------------------------------------------------------------------

constexpr std::array kNullOptions = {
    RouterOption{.name = "nulls",
                 .fallback = int64_t{8},
                 .help = "null experts, which add nothing and cost nothing",
                 .range = {.low = 0, .high = kMaxIds}},
    kSlots,
    RouterOption{.name = "weights",
                 .fallback = "true_only",
                 .help = "probabilities divided by their sum over the true experts chosen, or over "
                         "all slots",
                 .choices = "true_only|all_slots"},
};

std::vector<RouterTensor> null_tensors(const RouterConfig& config, const RouterShape& shape,
                                       int64_t) {
  std::vector<RouterTensor> tensors = {{"weight", {shape.experts, shape.hidden}}};
  const int64_t nulls = config.integer("nulls");
  if (nulls > 0) tensors.push_back({"null_weight", {nulls, shape.hidden}});
  return tensors;
}

void check_nulls(const RouterConfig& config, const RouterShape& shape) {
  const int64_t ids = shape.experts + config.integer("nulls");
  if (ids > kMaxIds) {
    throw UsageError(
        "router null_experts: {} experts and {} nulls are more than the {} ids there "
        "are",
        shape.experts, config.integer("nulls"), kMaxIds);
  }
  check_slots(config, slots_of(config, shape), ids, "true and null experts");
}

// --- random ------------------------------------------------------------------------------------

constexpr std::array kRandomOptions = {
    RouterOption{.name = "schedule",
                 .fallback = "linear",
                 .help = "how k goes from k_min to k_max in training",
                 .choices = "constant|linear|cosine|exponential|steps"},
    RouterOption{
        .name = "k_min",
        .fallback = int64_t{0},
        .help = "experts a token at the first step; not given = the model's experts per token",
        .range = {.low = 1, .high = kMaxIds}},
    RouterOption{.name = "k_max",
                 .fallback = int64_t{0},
                 .help = "and at the last; not given = all experts",
                 .range = {.low = 1, .high = kMaxIds}},
    RouterOption{.name = "k",
                 .fallback = int64_t{0},
                 .help = "experts a token in evaluation; not given = k_max",
                 .range = {.low = 1, .high = kMaxIds}},
    RouterOption{.name = "gate_std",
                 .fallback = 0.02,
                 .help = "standard deviation of the frozen router",
                 .range = {.low = 0, .open = true}},
};

std::vector<RouterTensor> random_tensors(const RouterConfig&, const RouterShape& shape, int64_t) {
  return {{"weight", {shape.experts, shape.hidden}}, {"bias", {shape.experts}}};
}

void check_random(const RouterConfig& config, const RouterShape& shape) {
  const int64_t first = config.integer("k_min") ? config.integer("k_min") : shape.experts_per_token;
  const int64_t last = config.integer("k_max") ? config.integer("k_max") : shape.experts;
  check_slots(config, config.integer("k") ? config.integer("k") : last, shape.experts, "experts");
  if (first >= 1 && first <= last && last <= shape.experts) return;
  throw UsageError(
      "router smoe_dropout: k goes from {} to {}, must rise from at least 1 to at most {}, the "
      "experts",
      first, last, shape.experts);
}

// --- the list ----------------------------------------------------------------------------------

constexpr std::array kKinds = {
    RouterKind{.name = "top_k",
               .help = "the k experts of the highest score, with groups, bias or capacity",
               .paper = "Shazeer et al., Outrageously Large Neural Networks, 2017; "
                        "DeepSeek-V3, 2024",
               .options = kTopKOptions,
               .tensors = top_k_tensors,
               .check = check_top_k},
    RouterKind{.name = "top_p",
               .help = "the fewest experts whose probabilities pass p: more where it is unsure",
               .paper = "Huang et al., Harder Tasks Need More Experts, 2024",
               .balance = BalanceForm::kPerToken,
               .options = kTopPOptions,
               .tensors = one_matrix},
    RouterKind{.name = "null_experts",
               .help = "top-k over true experts and null ones that cost nothing",
               .paper = "Zeng et al., AdaMoE: Token-Adaptive Routing with Null Experts, 2024",
               .balance = BalanceForm::kPooledNulls,
               .options = kNullOptions,
               .tensors = null_tensors,
               .check = check_nulls},
    RouterKind{.name = "smoe_dropout",
               .help = "a random router that never learns, with more and more experts",
               .paper = "Chen et al., Sparse MoE as the New Dropout, 2023",
               .needs = "step",
               .balance = BalanceForm::kNone,
               .options = kRandomOptions,
               .tensors = random_tensors,
               .check = check_random},
};

}  // namespace

std::span<const RouterKind> router_kinds() { return kKinds; }

const RouterKind& router_kind_named(std::string_view name) {
  std::vector<std::string> names;
  for (const RouterKind& kind : router_kinds()) {
    if (kind.name == name) return kind;
    names.emplace_back(kind.name);
  }
  throw UsageError("unknown router kind '{}'{} (cadre list routers shows them)", one_line(name),
                   did_you_mean(name, names));
}

const RouterOption& option_named(const RouterKind& kind, std::string_view name) {
  std::vector<std::string> names;
  for (const RouterOption& option : kind.options) {
    if (option.name == name) return option;
    names.emplace_back(option.name);
  }
  throw UsageError("router {} has no option '{}'{} (cadre list routers shows them)", kind.name,
                   one_line(name), did_you_mean(name, names));
}

std::string choices_of(const RouterOption& option) {
  std::string list(option.choices);
  for (size_t at = list.find('|'); at != std::string::npos; at = list.find('|', at)) {
    list.replace(at, 1, ", ");
  }
  return list;
}

}  // namespace cadre
