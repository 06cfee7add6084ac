#pragma once

/// Byte-level language models on disk: their checkpoint, reshapes of it, and what the engine makes
/// of them, for recipes with a claim on size or speed.

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "recipes/harness/byte_lm.h"

namespace cadre::recipes {

/// A temporary folder that is gone with its owner.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

/// The checkpoint's folder, with the tokenizer whose ids are bytes.
void save_byte_lm(const std::filesystem::path& folder, LanguageModel& model);

/// Runs a reshape operation (cadre/reshape/ops.h) on one checkpoint. `stats` is a file of
/// calibrate(), or empty.
void reshape_lm(const std::string& op, const std::filesystem::path& in,
                const nlohmann::json& parameters, const std::filesystem::path& out,
                const std::filesystem::path& stats = {});

struct InEngine {
  double bits_per_byte = 0;    ///< mean over the domains
  double expert_bytes = 0;     ///< of the routed experts as the checkpoint stores them, in F32
  double active_millions = 0;  ///< parameters at work on a token
  double read_per_second = 0;  ///< bytes a second, sequences of 128 together
};
/// Opens the checkpoint in the engine (weights in F32, one thread) and reads the validation
/// sequences.
InEngine measure_in_engine(const std::filesystem::path& folder,
                           const std::vector<std::vector<TokenBatch>>& validation);

}  // namespace cadre::recipes
