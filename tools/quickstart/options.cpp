#include "tools/quickstart/options.h"

#include "cadre/base/error.h"
#include "tools/common/learn_options.h"

namespace cadre {

void add_quickstart_options(CommandLine& line, QuickstartOptions& options) {
  line.add(kOutputGroup, "--out", options.out,
           "Folder for everything: data/, moe/, dense/, plan.json, summary.json, report.html");
  line.add_flag(kOutputGroup, "--restart", options.restart,
                "Forget an earlier run in --out and begin anew");
  line.add_flag(kOutputGroup, "--json", options.json,
                "Print summary.json at the end instead of tables");
  line.add(kOutputGroup, "--sample-tokens", options.sampling.tokens,
           "Tokens to generate for each domain's prompt")
      ->check(CLI::PositiveNumber);
  line.add(kOutputGroup, "--temperature", options.sampling.temperature,
           "Of those samples; 0 = always the likeliest token")
      ->check(CLI::NonNegativeNumber);
  add_preparation_options(line, options.data);
  add_model_options(line, options.model);
  add_training_options(line, options.training);
  line.add(kTrainingGroup, "--minutes", options.minutes,
           "Train each model at most about so many minutes: --steps is cut once, by a measurement; "
           "0 = no limit")
      ->check(CLI::NonNegativeNumber);
}

void check_options(const QuickstartOptions& options) {
  if (options.model.experts == 0) {
    throw UsageError(
        "--experts is 0: quickstart compares an expert model with its dense twin, so it needs "
        "experts (cadre train trains dense models)");
  }
  for (ModelConfig config : {options.model, dense_twin(options.model)}) {
    config.vocabulary = options.data.vocabulary;
    config.validate();
  }
  if (options.training.length > options.model.max_positions) {
    throw UsageError("--length {} is beyond --context {}", options.training.length,
                     options.model.max_positions);
  }
}

ModelConfig dense_twin(const ModelConfig& moe) {
  ModelConfig dense = moe;
  dense.architecture = Architecture::kLlama;
  dense.intermediate = (moe.experts_per_token + moe.shared_experts) * moe.expert_intermediate;
  dense.experts = dense.experts_per_token = dense.expert_intermediate = 0;
  dense.shared_experts = dense.first_dense_layers = 0;
  dense.normalize_expert_weights = false;
  return dense;
}

}  // namespace cadre
