#pragma once

/// The training loop: steps, evaluation, metrics, checkpoints that resume bit-exactly, interruption.

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cadre/data/token_batches.h"
#include "cadre/training/checkpoint.h"
#include "cadre/training/optimizer.h"

namespace cadre {

struct TrainOptions {
  int64_t steps = 1000;
  int64_t batch = 16;             ///< sequences a micro-batch
  int64_t length = 256;           ///< tokens a sequence
  int64_t accumulate = 1;         ///< micro-batches a step
  double lr = 1e-3;
  int64_t warmup_steps = 50;
  double final_lr_share = 0.1;
  AdamWOptions adamw;
  uint64_t seed = 1;
  int64_t evaluate_every = 0;     ///< steps; 0 = only at the end
  int64_t evaluate_sequences = 64;///< per domain
  int64_t save_every = 200;       ///< steps between resumable checkpoints; 0 = only at the end or on interruption
  Activations activations = Activations::kKeep;
};

struct DomainLoss {
  std::string domain;
  double loss = 0;        ///< nats per token
  int64_t tokens = 0;
};

struct Evaluation {
  std::vector<DomainLoss> domains;
  double mean = 0;        ///< mean over domains
};

struct StepReport {
  int64_t step = 0, steps = 0, tokens = 0;
  double loss = 0, cross_entropy = 0, lr = 0, grad_norm = 0;
  double tokens_per_second = 0;
  double train_seconds = 0;        ///< time in training steps so far, over all runs; evaluation and saving not counted
  double router_entropy = 0;       ///< mean over expert layers, nats; 0 for dense models
  double max_over_mean_load = 0;   ///< worst over expert layers
  std::vector<double> load;        ///< of the last expert layer: shares
};

struct TrainResult {
  enum class End { kFinished, kInterrupted } end = End::kFinished;
  int64_t steps = 0, tokens = 0;
  double train_seconds = 0;
  Evaluation validation;           ///< of the finished model
  /// (tokens, train_seconds, mean validation loss) at each evaluation, for curves.
  struct Point { int64_t step, tokens; double seconds, loss; };
  std::vector<Point> curve;
};

/// Trains in `folder`: checkpoint files at its top (config.json, model.safetensors, tokenizer.json), the resumable state in
/// folder/state (weights, moments, step, counters), metrics.jsonl (a line a step; resuming drops lines after the saved step).
class Trainer {
 public:
  /// Starts from the state in `folder` when there is one, else with fresh weights, or with `initial`'s
  /// weights (fine-tuning). Throws UsageError when the state was made with other options (says which).
  Trainer(std::filesystem::path folder, const ModelConfig& model, const TrainOptions& options,
          std::shared_ptr<const TokenBatches> data, const Tokenizer& tokenizer,
          std::unique_ptr<LanguageModel> initial = nullptr);

  /// Runs to the end, or until interrupted() (then saves the state and returns kInterrupted). A loss or gradient
  /// that is not finite throws Error naming step and tensor; the last saved state stays. `on_step` may be empty.
  TrainResult run(const std::function<void(const StepReport&)>& on_step = {});

  bool resumed() const { return first_step_ > 0; }
  int64_t first_step() const { return first_step_; }
  LanguageModel& model() { return *model_; }

 private:
  std::filesystem::path folder_;
  TrainOptions options_;
  std::shared_ptr<const TokenBatches> data_;
  Tokenizer tokenizer_;
  std::unique_ptr<LanguageModel> model_;
  std::unique_ptr<AdamW> optimizer_;
  int64_t first_step_ = 0;
};

/// Validation loss of each domain: at most `max_sequences` sequences of `length` tokens each.
Evaluation evaluate(LanguageModel& model, const std::vector<DomainTokens>& domains, int64_t batch,
                    int64_t length, int64_t max_sequences);

}  // namespace cadre
