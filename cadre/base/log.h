#pragma once

/// The log: lines on stderr for whoever runs the program, above a running progress display.
/// Results never go here, they go to stdout.

#include <spdlog/logger.h>

#include <string_view>

namespace cadre {

/// The process's logger: logger().info("read {} tokens", n). Its level at first is CADRE_LOG's
/// (trace, debug, info, warning, error, critical, off), "info" without it; UsageError when
/// CADRE_LOG is none of these. Any thread may log.
spdlog::logger& logger();

/// Sets the level by name, e.g. "debug" for --verbose. Throws UsageError that lists the names.
void set_log_level(std::string_view name);

}  // namespace cadre
