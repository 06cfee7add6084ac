#include "tools/common/learn_options.h"

#include <algorithm>
#include <map>
#include <memory>

#include "cadre/base/error.h"
#include "cadre/formats/router_kinds.h"
#include "cadre/objectives/objectives.h"

namespace cadre {
namespace {

void add_architecture(CommandLine& line, ModelConfig& config) {
  const auto set = [&config](const std::string& name) {
    config.architecture = architecture_named(name);
  };
  line.app()
      .add_option_function<std::string>(
          "--architecture", set,
          "Names and keys of the checkpoint: deepseek and olmoe have experts, llama is dense")
      ->group(kModelGroup)
      ->take_last()
      ->default_str(std::string(name_of(config.architecture)));
}

void add_expert_options(CommandLine& line, ModelConfig& config) {
  const auto add = [&](const char* name, auto& target, const char* help) {
    line.add(kModelGroup, name, target, help);
  };
  add("--experts", config.experts, "Routed experts a layer; 0 = a dense model");
  add("--experts-per-token", config.experts_per_token, "Routed experts that work on each token");
  add("--expert-intermediate", config.expert_intermediate, "Inner width of one expert");
  add("--shared-experts", config.shared_experts, "Experts that work on every token (deepseek)");
  add("--first-dense-layers", config.first_dense_layers,
      "Leading layers without experts (deepseek)");
  add("--balance", config.balance_coefficient, "Coefficient of the load-balance loss");
  add("--z-loss", config.z_loss_coefficient, "Coefficient of the router's z-loss");
  line.add_flag(kModelGroup, "--normalize-expert-weights,!--raw-expert-weights",
                config.normalize_expert_weights, "Divide the chosen experts' weights by their sum");
}

/// "top_k, sparse_ot: experts a token; not given = ..." for the option that some kinds have.
std::string help_of(std::string_view name) {
  std::string kinds, help;
  for (const RouterKind& kind : router_kinds()) {
    for (const RouterOption& option : kind.options) {
      if (option.name != name) continue;
      kinds += (kinds.empty() ? "" : ", ") + std::string(kind.name);
      if (help.empty()) help = option.help;
    }
  }
  return kinds + ": " + help;
}

/// The type's name in --help and for TOML.
const char* type_name_of(const RouterOption& option) {
  constexpr const char* kNames[] = {"BOOLEAN", "INT", "FLOAT", "TEXT"};
  return kNames[option.fallback.index()];
}

/// "groups_used" as flags are spelled: "groups-used".
std::string dashed(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

/// The flag of a router's option; also as config.json spells it.
std::string flag_of(const std::string& option) {
  const std::string flag = "--router-" + dashed(option), as_key = "--router-" + option;
  return flag == as_key ? flag : flag + "," + as_key;
}

/// What was given on the command line, until the kind is known.
using GivenOptions = std::map<std::string, std::string>;

void take_options(const GivenOptions& given, RouterConfig& router) {
  if (given.empty()) return;
  if (router.is_standard()) {
    throw UsageError("--router-{} needs --router KIND (cadre list routers shows them)",
                     dashed(given.begin()->first));
  }
  for (const auto& [name, text] : given) set_router_option(router, name, text);
}

/// --router KIND, and --router-NAME for every option that some kind has.
void add_router_options(CommandLine& line, ModelConfig& config) {
  const auto given = std::make_shared<GivenOptions>();
  const auto set_kind = [&config](const std::string& kind) {
    config.router = {.kind = std::string(router_kind_named(kind).name)};
  };
  line.app()
      .add_option_function<std::string>(
          "--router", set_kind,
          "Who chooses the experts: a kind of cadre list routers; not given = the architecture's "
          "own top-k")
      ->group(kRouterGroup)
      ->take_last();
  std::map<std::string_view, const RouterOption*> options;
  for (const RouterKind& kind : router_kinds()) {
    for (const RouterOption& option : kind.options) options.emplace(option.name, &option);
  }
  for (const auto& [name, option] : options) {
    const auto set = [given, key = std::string(name)](const std::string& text) {
      (*given)[key] = text;
    };
    line.app()
        .add_option_function<std::string>(flag_of(std::string(name)), set, help_of(name))
        ->group(kRouterGroup)
        ->type_name(type_name_of(*option))
        ->take_last();
  }
  line.app().final_callback([given, &config] { take_options(*given, config.router); });
}

/// --objective NAME=COEFFICIENT, any number of them; NAME alone has the published coefficient.
void add_objective_option(CommandLine& line, ModelConfig& config) {
  const auto set = [&config](const std::vector<std::string>& list) {
    for (const std::string& text : list) {
      const auto [name, coefficient] = parse_objective(text);
      config.objectives[name] = coefficient;
    }
  };
  line.app()
      .add_option_function<std::vector<std::string>>(
          "--objective", set,
          "A further routing loss as name=coefficient, or name alone (cadre list objectives)")
      ->group(kModelGroup);
}

}  // namespace

std::pair<std::string, double> parse_objective(const std::string& text) {
  const std::string name = text.substr(0, text.find('='));
  make_objective(name, 0);
  for (const ObjectiveEntry& entry : objectives_list()) {
    if (name == text && entry.name == name) return {name, entry.coefficient};
  }
  double coefficient = 0;
  if (!CLI::detail::lexical_cast(text.substr(name.size() + 1), coefficient)) {
    throw UsageError("--objective {}: the coefficient must be a number", text);
  }
  return {name, coefficient};
}

void add_model_options(CommandLine& line, ModelConfig& config) {
  const auto add = [&](const char* name, auto& target, const char* help) {
    line.add(kModelGroup, name, target, help);
  };
  add_architecture(line, config);
  add("--hidden", config.hidden, "Model width");
  add("--layers", config.layers, "Transformer blocks");
  add("--heads", config.heads, "Attention heads; must divide --hidden");
  add("--kv-heads", config.kv_heads, "Heads of keys and values; must divide --heads");
  add("--intermediate", config.intermediate, "Inner width of a dense feed-forward layer");
  add_expert_options(line, config);
  add("--context", config.max_positions, "Longest sequence in tokens");
  add("--rope-theta", config.rope_theta, "Base of the rotary positions' wavelengths");
  line.add_flag(kModelGroup, "--tied-embeddings,!--separate-embeddings", config.tied_embeddings,
                "Use the embedding as output matrix, too");
  add_objective_option(line, config);
  add_router_options(line, config);
}

void add_training_options(CommandLine& line, TrainOptions& options) {
  const auto add = [&](const char* name, auto& target, const char* help) {
    return line.add(kTrainingGroup, name, target, help);
  };
  add("--steps", options.steps, "Optimiser steps")->check(CLI::PositiveNumber);
  add("--batch", options.batch, "Sequences a micro-batch")->check(CLI::PositiveNumber);
  add("--length", options.length, "Tokens a sequence")->check(CLI::PositiveNumber);
  add("--accumulate", options.accumulate, "Micro-batches a step")->check(CLI::PositiveNumber);
  add("--lr", options.lr, "Peak learning rate of AdamW")->check(CLI::PositiveNumber);
  add("--warmup-steps", options.warmup_steps, "Steps of linear warm-up; cosine decay follows")
      ->check(CLI::NonNegativeNumber);
  add("--final-lr-share", options.final_lr_share,
      "Learning rate at the end, as a share of the peak")
      ->check(CLI::Range(0.0, 1.0));
  add("--consistency", options.consistency,
      "Above 0: two passes a batch, whose predictions this coefficient holds together; for routers "
      "that draw (THOR: --router stochastic --consistency 5)")
      ->check(CLI::NonNegativeNumber);
  add("--weight-decay", options.adamw.weight_decay, "AdamW's decay of matrices")
      ->check(CLI::NonNegativeNumber);
  add("--beta1", options.adamw.beta1, "AdamW's decay of the mean gradient")
      ->check(CLI::Range(0.0, 1.0));
  add("--beta2", options.adamw.beta2, "AdamW's decay of the mean squared gradient")
      ->check(CLI::Range(0.0, 1.0));
  add("--clip-norm", options.adamw.clip_norm, "Largest norm of the gradient; 0 = no clipping")
      ->check(CLI::NonNegativeNumber);
  add("--seed", options.seed, "Of weights and order of the text");
  add("--evaluate-every", options.evaluate_every, "Steps between evaluations; 0 = only at the end")
      ->check(CLI::NonNegativeNumber);
  add("--evaluate-sequences", options.evaluate_sequences,
      "Held-out sequences of each domain to evaluate on")
      ->check(CLI::PositiveNumber);
  add("--save-every", options.save_every, "Steps between saves; 0 = only at the end or on Ctrl-C")
      ->check(CLI::NonNegativeNumber);
  const auto recompute = [&options](int64_t count) {
    options.activations = count > 0 ? Activations::kRecompute : Activations::kKeep;
  };
  line.app()
      .add_flag_function(
          "--recompute", recompute,
          "Compute activations again in the backward pass: less memory, a third slower")
      ->group(kTrainingGroup);
}

}  // namespace cadre
