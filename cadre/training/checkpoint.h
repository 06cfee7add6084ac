#pragma once

/// Checkpoint directories: config.json, model.safetensors (sharded when large), tokenizer.json.

#include <filesystem>
#include <memory>

#include "cadre/formats/tokenizer.h"
#include "cadre/training/language_model.h"

namespace cadre {

/// Replaces the folder atomically (AtomicFolder): the old one survives a full disk or a kill.
void save_checkpoint(const std::filesystem::path& folder, LanguageModel& model, const Tokenizer& tokenizer);

/// Throws IoError (missing), FormatError (a tensor missing, of wrong shape, NaN; an unknown architecture).
std::unique_ptr<LanguageModel> load_checkpoint(const std::filesystem::path& folder);

/// The checkpoint's tokenizer; throws FormatError when its vocabulary does not fit the model's.
Tokenizer load_tokenizer(const std::filesystem::path& folder, const ModelConfig& config);

}  // namespace cadre
