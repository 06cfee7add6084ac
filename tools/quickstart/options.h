#pragma once

/// What `cadre quickstart` does when nobody says otherwise, and the options that say otherwise.

#include <filesystem>

#include "cadre/formats/model_config.h"
#include "cadre/training/generation.h"
#include "cadre/training/trainer.h"
#include "tools/common/command_line.h"
#include "tools/common/preparation.h"

namespace cadre {

/// The defaults are sized for less than four minutes a model on two cores.
struct QuickstartOptions {
  std::filesystem::path out = "quickstart";
  PreparationOptions data = {.vocabulary = 4096, .max_domain_mib = 8};
  ModelConfig model = {
      .hidden = 256,
      .layers = 4,
      .heads = 4,
      .kv_heads = 4,
      .experts = 32,
      .experts_per_token = 4,
      .expert_intermediate = 128,
      .shared_experts = 1,
      // Raw softmax weights stay near 1/32 for the first million tokens, too little for experts
      // to learn by: normalised ones, and a balance that keeps all experts at work.
      .normalize_expert_weights = true,
      .balance_coefficient = 0.02,
      .max_positions = 1024};
  // Small batches: in so few minutes the number of steps decides, for both models.
  TrainOptions training = {.steps = 2500,
                           .batch = 4,
                           .length = 256,
                           .lr = 2e-3,
                           .warmup_steps = 100,
                           .evaluate_sequences = 32,
                           .save_every = 250};
  double minutes = 3.5;  ///< at most so long a model; 0 = no limit
  SamplingOptions sampling = {.tokens = 64};
  bool restart = false;  ///< forget an earlier run of the same folder
  bool json = false;
};

void add_quickstart_options(CommandLine& line, QuickstartOptions& options);

/// Throws UsageError for options that cannot work, before any time is spent.
void check_options(const QuickstartOptions& options);

/// The dense model that does as much work on a token: a feed-forward layer as wide as the experts
/// that are active together.
ModelConfig dense_twin(const ModelConfig& moe);

}  // namespace cadre
