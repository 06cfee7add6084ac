#pragma once

/// Router rows from example prompts.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace cadre::reshape {

struct ExpertPrompts {
  std::vector<std::string> positive, negative;
};

enum class PromptView { kHidden, kEmbedding };

/// [layers][E * D]: rows of length 1 (zero where nothing is left). kHidden runs the dense model.
/// Throws UsageError for an expert without prompts.
std::vector<std::vector<float>> routers_from_prompts(const std::filesystem::path& dense,
                                                     const std::vector<ExpertPrompts>& prompts,
                                                     PromptView view);

}  // namespace cadre::reshape
