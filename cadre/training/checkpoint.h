#pragma once

/// Checkpoint directories: config.json, model.safetensors (sharded when large), tokenizer.json.

#include <filesystem>
#include <memory>
#include <string>

#include "cadre/formats/tokenizer.h"
#include "cadre/training/language_model.h"

namespace cadre {

/// Replaces the folder atomically (AtomicFolder) with everything in it: the old one survives a full
/// disk or a kill. Throws IoError.
void save_checkpoint(const std::filesystem::path& folder, LanguageModel& model,
                     const Tokenizer& tokenizer);

/// Writes the checkpoint's files into a folder that holds other things, too; each file is replaced
/// atomically, the weights last: where they are, all is. Throws IoError.
void write_checkpoint_files(const std::filesystem::path& folder, LanguageModel& model,
                            const Tokenizer& tokenizer);

/// Throws IoError (missing), FormatError (a tensor missing, of wrong shape or type, NaN; an unknown
/// architecture). Weights in BF16 or F16 become fp32.
std::unique_ptr<LanguageModel> load_checkpoint(const std::filesystem::path& folder,
                                               Activations activations = Activations::kKeep);

/// The checkpoint's tokenizer; throws FormatError when its vocabulary does not fit the model's.
Tokenizer load_tokenizer(const std::filesystem::path& folder, const ModelConfig& config);

/// Throws FormatError when the tokenizer has ids that the model does not know. (Fewer are fine:
/// published models pad their vocabulary.)
void check_tokenizer(const Tokenizer& tokenizer, const ModelConfig& config,
                     const std::string& where);

}  // namespace cadre
