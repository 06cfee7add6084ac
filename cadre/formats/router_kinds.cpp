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

/// Of kinds that look ahead.
constexpr RouterOption kFallback = {
    .name = "fallback",
    .fallback = "none",
    .help =
        "what chooses when text is generated, where nothing can look ahead: none refuses, top_k "
        "takes the experts per token of the highest score by the same matrix",
    .choices = "none|top_k"};

void check_slots(const RouterConfig& config, int64_t k, int64_t most, const char* what) {
  if (k >= 1 && k <= most) return;
  throw UsageError("router {}: k is {}, must be from 1 to {}, the {}", config.kind, k, most, what);
}

void check_k(const RouterConfig& config, const RouterShape& shape) {
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

// --- noisy_top_k -------------------------------------------------------------------------------

constexpr std::array kNoisyOptions = {
    kSlots,
    RouterOption{.name = "noise_form",
                 .fallback = "fixed",
                 .help = "noise of one width (V-MoE), or of a width learned for each token and "
                         "expert (Shazeer)",
                 .choices = "fixed|learned"},
    RouterOption{.name = "noise",
                 .fallback = 1.0,
                 .help = "factor on the noise in training; fixed: of 1 / experts",
                 .range = {.low = 0}},
};

std::vector<RouterTensor> noisy_tensors(const RouterConfig& config, const RouterShape& shape,
                                        int64_t) {
  std::vector<RouterTensor> tensors = {{"weight", {shape.experts, shape.hidden}}};
  if (config.text("noise_form") == "learned") {
    tensors.push_back({"noise_weight", {shape.experts, shape.hidden}});
  }
  return tensors;
}

// --- expert_choice -----------------------------------------------------------------------------

constexpr std::array kChoiceOptions = {
    RouterOption{.name = "capacity_factor",
                 .fallback = 2.0,
                 .help = "mean experts a token",
                 .range = {.low = 0, .high = kMaxIds, .open = true}},
    RouterOption{.name = "scope",
                 .fallback = "batch",
                 .help = "the tokens that compete for an expert's places",
                 .choices = "batch|sequence"},
    RouterOption{.name = "noise",
                 .fallback = 0.0,
                 .help = "factor on noise of width 1 / experts in training",
                 .range = {.low = 0}},
    kFallback,
};

// --- hash --------------------------------------------------------------------------------------

std::vector<RouterTensor> hash_tensors(const RouterConfig&, const RouterShape& shape, int64_t) {
  return {{"table", {shape.vocabulary}}};
}

// --- sequence ----------------------------------------------------------------------------------

constexpr std::array kSequenceOptions = {
    kSlots,
    RouterOption{.name = "length",
                 .fallback = int64_t{0},
                 .help = "above 0: sequences have exactly so many tokens, read side by side; else "
                         "their mean is read",
                 .range = {.low = 0, .high = 1 << 20}},
    kWeights,
    RouterOption{.name = "scale",
                 .fallback = 1.0,
                 .help = "factor on the weights",
                 .range = {.low = 0, .open = true}},
    kFallback,
};

std::vector<RouterTensor> sequence_tensors(const RouterConfig& config, const RouterShape& shape,
                                           int64_t) {
  const int64_t read = std::max<int64_t>(1, config.integer("length"));
  return {{"weight", {shape.experts, read * shape.hidden}}};
}

// --- stochastic --------------------------------------------------------------------------------

constexpr std::array kStochasticOptions = {
    RouterOption{.name = "train_scope",
                 .fallback = "batch",
                 .help = "what shares a draw in training",
                 .choices = "batch|sequence|token"},
    RouterOption{.name = "eval_scope",
                 .fallback = "sequence",
                 .help = "and in evaluation",
                 .choices = "batch|sequence|token"},
};

std::vector<RouterTensor> no_tensors(const RouterConfig&, const RouterShape&, int64_t) {
  return {};
}

// --- recurrent ---------------------------------------------------------------------------------

constexpr std::array kRecurrentOptions = {
    kSlots,
    RouterOption{.name = "width",
                 .fallback = int64_t{128},
                 .help = "of the state that goes from layer to layer",
                 .range = {.low = 1, .high = kMaxIds}},
    RouterOption{.name = "cell",
                 .fallback = "gru",
                 .help = "a gated recurrent unit, or h = tanh(W r + U h)",
                 .choices = "gru|tanh"},
    RouterOption{.name = "memory",
                 .fallback = "full",
                 .help = "what reaches a router of the one below: its state with or without "
                         "gradient, nothing, or its probabilities times residual",
                 .choices = "full|detached|none|residual"},
    RouterOption{.name = "residual",
                 .fallback = 0.5,
                 .help = "factor of the memory 'residual'",
                 .range = {.low = 0}},
    kWeights,
};

/// The cell that all layers share is stored with the lowest.
std::vector<RouterTensor> recurrent_tensors(const RouterConfig& config, const RouterShape& shape,
                                            int64_t index) {
  const int64_t width = config.integer("width");
  const int64_t rows = (config.text("cell") == "gru" ? 3 : 1) * width;
  std::vector<RouterTensor> tensors = {{"proj", {width, shape.hidden}},
                                       {"weight", {shape.experts, width}}};
  if (index == 0) {
    tensors.push_back({"cell.weight_ih", {rows, width}});
    tensors.push_back({"cell.weight_hh", {rows, width}});
    tensors.push_back({"cell.bias_ih", {rows}});
    tensors.push_back({"cell.bias_hh", {rows}});
  }
  return tensors;
}

// --- patch_choice ------------------------------------------------------------------------------

constexpr std::array kPatchOptions = {
    kSlots,
    RouterOption{.name = "patch",
                 .fallback = int64_t{1},
                 .help = "tokens that an expert takes together",
                 .range = {.low = 1, .high = 1 << 20}},
    RouterOption{.name = "share",
                 .fallback = 0.5,
                 .help = "of a sequence's patches that each expert takes",
                 .range = {.low = 0, .high = 1, .open = true}},
    RouterOption{.name = "short_lists",
                 .fallback = "drop",
                 .help = "places of an expert that no token wants: left empty, or filled with "
                         "tokens of weight 0",
                 .choices = "drop|pad"},
    kFallback,
};

std::vector<RouterTensor> patch_tensors(const RouterConfig&, const RouterShape& shape, int64_t) {
  return {{"weight", {shape.experts, shape.hidden}}, {"bias", {shape.experts}}};
}

// --- sparse_ot ---------------------------------------------------------------------------------

constexpr std::array kTransportOptions = {
    RouterOption{.name = "axis",
                 .fallback = "expert",
                 .help = "who is held to a number of partners: an expert to its capacity, or a "
                         "token to k",
                 .choices = "expert|token"},
    RouterOption{.name = "capacity_factor",
                 .fallback = 1.0,
                 .help = "an expert takes at most so many times its fair share",
                 .range = {.low = 1, .high = kMaxIds}},
    kSlots,
    RouterOption{.name = "gamma",
                 .fallback = 1.0,
                 .help = "strength of the squared norm in the transport problem",
                 .range = {.low = 0, .open = true}},
    RouterOption{.name = "combine",
                 .fallback = "softmax",
                 .help = "weights: the experts' probabilities, or the plan",
                 .choices = "softmax|plan"},
    RouterOption{.name = "start",
                 .fallback = "zero",
                 .help = "where the solver starts: from nothing, or from the exact balanced "
                         "assignment",
                 .choices = "zero|exact"},
    RouterOption{.name = "steps",
                 .fallback = int64_t{20},
                 .help = "of the solver",
                 .range = {.low = 0, .high = 100000}},
    RouterOption{.name = "learning_rate",
                 .fallback = 0.01,
                 .help = "of the solver",
                 .range = {.low = 0, .open = true}},
    RouterOption{.name = "scope",
                 .fallback = "batch",
                 .help = "the tokens that are carried together",
                 .choices = "batch|sequence"},
    kFallback,
};

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
    RouterKind{.name = "noisy_top_k",
               .help = "top-k of logits that noise moves in training",
               .paper = "Shazeer et al., Outrageously Large Neural Networks, 2017; Riquelme et "
                        "al., Scaling Vision with Sparse Mixture of Experts, 2021",
               .needs = "seed and step",
               .options = kNoisyOptions,
               .tensors = noisy_tensors,
               .check = check_k},
    RouterKind{.name = "expert_choice",
               .help = "each expert takes the tokens it wants most, as many as the others",
               .paper = "Zhou et al., Mixture-of-Experts with Expert Choice Routing, 2022",
               .causal = false,
               .batch_invariant = false,
               .balance = BalanceForm::kNone,
               .options = kChoiceOptions,
               .tensors = one_matrix},
    RouterKind{.name = "hash",
               .help = "a fixed table says each token id's expert",
               .paper = "Roller et al., Hash Layers For Large Sparse Models, 2021",
               .needs = "token ids",
               .balance = BalanceForm::kNone,
               .tensors = hash_tensors},
    RouterKind{.name = "sequence",
               .help = "one decision for all tokens of a sequence",
               .paper = "Yang et al., Union of Experts, 2025 (expert selection)",
               .causal = false,
               .batch_invariant = false,
               .options = kSequenceOptions,
               .tensors = sequence_tensors,
               .check = check_k},
    RouterKind{.name = "stochastic",
               .help = "no gate: experts by lot, in training and after",
               .paper = "Zuo et al., Taming Sparsely Activated Transformer with Stochastic "
                        "Experts, 2022",
               .batch_invariant = false,
               .needs = "seed and step",
               .balance = BalanceForm::kNone,
               .options = kStochasticOptions,
               .tensors = no_tensors},
    RouterKind{.name = "recurrent",
               .help = "a cell shared by all layers tells a router what those below decided",
               .paper = "Qiu et al., Layerwise Recurrent Router for Mixture-of-Experts, 2025",
               .needs = "the state of the layer below",
               .options = kRecurrentOptions,
               .tensors = recurrent_tensors,
               .check = check_k},
    RouterKind{.name = "patch_choice",
               .help = "each expert takes its best patches among the tokens that keep it",
               .paper = "Yang et al., Union of Experts, 2025 (data selection)",
               .causal = false,
               .batch_invariant = false,
               .balance = BalanceForm::kNone,
               .options = kPatchOptions,
               .tensors = patch_tensors,
               .check = check_k},
    RouterKind{.name = "sparse_ot",
               .help = "tokens carried to equally loaded experts by a sparse transport plan",
               .paper = "Liu et al., Sparsity-Constrained Optimal Transport, 2023",
               .causal = false,
               .batch_invariant = false,
               .balance = BalanceForm::kNone,
               .options = kTransportOptions,
               .tensors = one_matrix,
               .check = check_k},
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

void check_decoding(const RouterConfig& config) {
  if (config.is_standard()) return;
  if (config.kind == "top_k" && config.real("capacity_factor") > 0) {
    throw UsageError(
        "router top_k: with a capacity a token's experts depend on those after it; set "
        "capacity_factor to 0 to generate text");
  }
  if (router_kind_named(config.kind).causal || config.text("fallback") != "none") return;
  throw UsageError(
      "router {} looks ahead and cannot generate text; set its option fallback to top_k",
      config.kind);
}

std::string choices_of(const RouterOption& option) {
  std::string list(option.choices);
  for (size_t at = list.find('|'); at != std::string::npos; at = list.find('|', at)) {
    list.replace(at, 1, ", ");
  }
  return list;
}

}  // namespace cadre
