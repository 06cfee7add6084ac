#pragma once

/// The model's and the training's options as flags.

#include <string>

#include "cadre/formats/model_config.h"
#include "cadre/training/trainer.h"
#include "tools/common/command_line.h"

namespace cadre {

/// --architecture, --hidden, --layers, --experts and so on. The defaults shown are those of
/// `config`.
void add_model_options(CommandLine& line, ModelConfig& config);

/// --steps, --batch, --lr and so on.
void add_training_options(CommandLine& line, TrainOptions& options);

}  // namespace cadre
