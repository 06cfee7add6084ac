#include "cadre/base/log.h"

#include <spdlog/details/null_mutex.h>
#include <spdlog/sinks/base_sink.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <string>

#include "cadre/base/error.h"
#include "cadre/base/terminal.h"

namespace cadre {
namespace {

// print_line() locks, so the sink need not.
class StderrSink : public spdlog::sinks::base_sink<spdlog::details::null_mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    std::string_view prefix;
    if (message.level == spdlog::level::warn) prefix = "warning: ";
    if (message.level >= spdlog::level::err) prefix = "error: ";
    if (message.level <= spdlog::level::debug) prefix = "debug: ";
    print_line(stderr, std::string(prefix).append(message.payload.data(), message.payload.size()));
  }
  void flush_() override {}
};

spdlog::level::level_enum level_of(std::string_view name, std::string_view source) {
  static constexpr std::array<std::string_view, 7> kNames = {"trace", "debug",    "info", "warning",
                                                             "error", "critical", "off"};
  for (size_t level = 0; level < kNames.size(); ++level) {
    if (kNames[level] == name) return static_cast<spdlog::level::level_enum>(level);
  }
  throw UsageError("{} '{}' is unknown: use one of {}", source, name, fmt::join(kNames, ", "));
}

std::unique_ptr<spdlog::logger> make_logger() {
  const char* const environment = std::getenv("CADRE_LOG");
  const bool chosen = environment != nullptr && *environment != '\0';
  auto made = std::make_unique<spdlog::logger>("cadre", std::make_shared<StderrSink>());
  made->set_level(level_of(chosen ? environment : "info", "CADRE_LOG"));
  return made;
}

}  // namespace

spdlog::logger& logger() {
  // Never destroyed: destructors of statics may log.
  static spdlog::logger* const made = make_logger().release();
  return *made;
}

void set_log_level(std::string_view name) { logger().set_level(level_of(name, "log level")); }

}  // namespace cadre
