#pragma once

/// The route traces that the BigMoeOnEdge project publishes (2026): CSV lines of turn, phase, step,
/// layer, slot, expert, weight below comments that name the model's shape.

#include <filesystem>

#include "cadre/engine/trace.h"

namespace cadre::engine {

/// Throws IoError; FormatError that names the line.
RouteTrace read_trace_csv(const std::filesystem::path& path);

}  // namespace cadre::engine
