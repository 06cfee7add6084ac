#pragma once

/// The training loop: steps, evaluation, metrics, checkpoints that resume bit-exactly,
/// interruption.

#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cadre/data/token_batches.h"
#include "cadre/training/checkpoint.h"
#include "cadre/training/evaluation.h"
#include "cadre/training/optimizer.h"

namespace cadre {

class MetricsLog;
struct TrainingState;

struct TrainOptions {
  int64_t steps = 1000;
  int64_t batch = 16;      ///< sequences a micro-batch; the data's
  int64_t length = 256;    ///< tokens a sequence; the data's
  int64_t accumulate = 1;  ///< micro-batches a step
  double lr = 1e-3;
  int64_t warmup_steps = 50;
  double final_lr_share = 0.1;
  /// Above 0: every batch is passed twice and the two predictions are held together by this
  /// coefficient (cadre/objectives/consistency.h; THOR: 5). For routers that draw.
  double consistency = 0;
  AdamWOptions adamw;
  uint64_t seed = 1;
  int64_t evaluate_every = 0;       ///< steps; 0 = only at the end
  int64_t evaluate_sequences = 64;  ///< per domain
  int64_t save_every = 200;  ///< steps between resumable checkpoints; 0 = only at the end or on
                             ///< interruption
  Activations activations = Activations::kKeep;
};

/// Throws UsageError when `consistency` is asked of a router that draws nothing: two passes differ
/// only where one does.
void check_draws(const TrainOptions& options, const RouterConfig& router);

struct StepReport {
  int64_t step = 0, steps = 0, tokens = 0;
  double loss = 0, cross_entropy = 0, lr = 0, grad_norm = 0;
  double tokens_per_second = 0;  ///< of this step
  double train_seconds = 0;      ///< in training steps so far, over all runs; evaluation and saving
                                 ///< not counted
  double router_entropy = 0;     ///< mean over expert layers, nats; 0 for dense models
  double max_over_mean_load = 0;  ///< worst over expert layers
  std::vector<double> load;       ///< of the last expert layer: shares
};

struct TrainResult {
  enum class End { kFinished, kInterrupted } end = End::kFinished;
  int64_t steps = 0, tokens = 0;
  double train_seconds = 0;
  Evaluation validation;  ///< of the finished model; the last one, if any, when interrupted
  struct Point {
    int64_t step, tokens;
    double seconds, loss;
  };
  /// (tokens, train_seconds, mean validation loss) at each evaluation, for curves.
  std::vector<Point> curve;
};

/// Trains in `folder`: checkpoint files at its top (config.json, model.safetensors,
/// tokenizer.json), the resumable state in folder/state (weights, moments, counters; replaced
/// atomically), metrics.jsonl (a line a step and a line an evaluation; resuming drops the lines
/// after the saved step).
///
/// A resumed run gives the bits of an uninterrupted one on the same machine. Times go to
/// Profile::global() as the sections data, forward, backward, optimizer, evaluate and save.
class Trainer {
 public:
  /// Starts from the state in `folder` when there is one, else with fresh weights, or with
  /// `initial`'s weights (fine-tuning). Throws UsageError for options out of range, data or a
  /// tokenizer that do not fit, a state that was made with other options (says which), a folder
  /// that holds a model without a state (it would be lost).
  Trainer(std::filesystem::path folder, const ModelConfig& model, const TrainOptions& options,
          std::shared_ptr<const TokenBatches> data, const Tokenizer& tokenizer,
          std::unique_ptr<LanguageModel> initial = nullptr);
  ~Trainer();

  /// Runs to the end, or until interrupted() (then saves the state and returns kInterrupted). A
  /// finished run returns its result again. A loss or gradient that is not finite throws Error
  /// naming step and tensor; IoError when a save fails. The last saved state stays. `on_step` may
  /// be empty.
  TrainResult run(const std::function<void(const StepReport&)>& on_step = {});

  bool resumed() const { return first_step_ > 0; }
  int64_t first_step() const { return first_step_; }
  LanguageModel& model() { return *model_; }

 private:
  struct StepFigures;

  void check_fit(const ModelConfig& model) const;
  void restore();
  StepFigures train_step();
  LossParts loss_of(const TokenBatch& batch);
  void update(StepFigures& figures);
  void check_finite(const LossParts& parts) const;
  [[noreturn]] void stop_training(const std::string& reason) const;
  double tokens_per_step() const {
    return static_cast<double>(options_.accumulate * options_.batch * options_.length);
  }
  StepReport report_of(const StepFigures& figures) const;
  void log_step(const StepFigures& figures);
  void evaluate_now();
  void save();
  TrainResult result(TrainResult::End end) const;

  std::filesystem::path folder_;
  TrainOptions options_;
  std::shared_ptr<const TokenBatches> data_;
  Tokenizer tokenizer_;
  std::vector<std::string> domain_names_;
  std::vector<std::vector<TokenBatch>> validation_;
  std::unique_ptr<LanguageModel> model_;
  std::unique_ptr<AdamW> optimizer_;
  std::unique_ptr<TrainingState> state_;
  std::unique_ptr<MetricsLog> metrics_;
  int64_t first_step_ = 0;
};

}  // namespace cadre
