#include "tools/common/learn_options.h"

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

}  // namespace

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
