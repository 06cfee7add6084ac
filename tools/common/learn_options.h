#pragma once

/// The model's and the training's options as flags.

#include <string>
#include <utility>

#include "cadre/formats/model_config.h"
#include "cadre/training/trainer.h"
#include "tools/common/command_line.h"

namespace cadre {

/// --architecture, --hidden, --layers, --experts and so on, --router with --router-NAME for its
/// options. The defaults shown are those of `config`, which must outlive the parsing.
void add_model_options(CommandLine& line, ModelConfig& config);

/// "load=0.01", or "load" for the published coefficient. Throws UsageError for an unknown name or a
/// coefficient that is no number.
std::pair<std::string, double> parse_objective(const std::string& text);

/// --steps, --batch, --lr and so on.
void add_training_options(CommandLine& line, TrainOptions& options);

}  // namespace cadre
