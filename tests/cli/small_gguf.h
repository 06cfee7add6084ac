#pragma once

/// A small model for tests of the run wing's programs: random weights, bytes as tokens.

#include <filesystem>

namespace cadre {

/// OLMoE's architecture with 2 layers of 8 experts, chatml's template, a context of 128.
void write_small_gguf(const std::filesystem::path& path);

}  // namespace cadre
