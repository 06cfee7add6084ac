#pragma once

/// A small model for tests of the run wing's programs: random weights, bytes as tokens.

#include <cstdint>
#include <filesystem>

namespace cadre {

struct SmallModel {
  int64_t layers = 2, hidden = 64, experts = 8, expert_width = 32, context = 128;
};

/// OLMoE's architecture, 2 experts a token, chatml's template; F32.
void write_small_gguf(const std::filesystem::path& path, const SmallModel& model = {});

}  // namespace cadre
