#pragma once

/// The resumable state of a training run: a folder with weights, the optimiser's moments and
/// counters.

#include <cstdint>
#include <filesystem>
#include <vector>

#include <nlohmann/json.hpp>

#include "cadre/training/language_model.h"
#include "cadre/training/optimizer.h"
#include "cadre/training/trainer.h"

namespace cadre {

struct TrainingState {
  int64_t step = 0;    ///< optimiser steps done
  int64_t tokens = 0;  ///< trained on so far
  double seconds = 0;  ///< in training steps
  std::vector<TrainResult::Point> curve;
  Evaluation validation;    ///< the last one
  nlohmann::json settings;  ///< everything that decides the numbers of the run
};

/// Everything that decides the numbers of a run, for comparison.
nlohmann::json settings_of(const ModelConfig& model, const TrainOptions& options,
                           const TokenBatches& data, const Tokenizer& tokenizer);

/// Throws UsageError naming the first setting that differs from what `folder` was made with.
void check_settings(const std::filesystem::path& folder, const nlohmann::json& saved,
                    const nlohmann::json& now);

/// Replaces `folder` atomically. Throws IoError; the folder is then as before.
void save_state(const std::filesystem::path& folder, const TrainingState& state,
                LanguageModel& model, const AdamW& optimizer);

bool has_state(const std::filesystem::path& folder);
/// Counters and settings only. Throws FormatError naming file and field.
TrainingState read_state(const std::filesystem::path& folder);
/// Weights and moments. Throws FormatError naming file and tensor.
void restore_tensors(const std::filesystem::path& folder, const TrainingState& state,
                     LanguageModel& model, AdamW& optimizer);

}  // namespace cadre
