#pragma once

/// metrics.jsonl: one JSON object a line, each with the "step" it belongs to.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>

#include <nlohmann/json_fwd.hpp>

namespace cadre {

class MetricsLog {
 public:
  /// Opens for appending after dropping the lines of steps beyond `last_step` and whatever is no
  /// whole line: what a killed run wrote after the state that is resumed. Throws IoError.
  MetricsLog(const std::filesystem::path& path, int64_t last_step);

  /// Buffered. Throws IoError.
  void append(const nlohmann::json& line);
  /// Makes all lines durable: a saved state must not be ahead of them. Throws IoError.
  void sync();

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };
  [[noreturn]] void fail() const;

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace cadre
