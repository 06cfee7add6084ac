#pragma once

/// TOML files as CLI11 configuration: [model] hidden = 512 is --hidden 512.

#include <CLI/CLI.hpp>
#include <string>

namespace cadre {

/// Reads TOML strictly: an unknown table or key, a key under the wrong table, a nested table and a
/// syntax error throw UsageError with file and line. Keys outside of any table may name any option.
class TomlConfig : public CLI::Config {
 public:
  /// `app` must outlive the formatter (it owns it).
  explicit TomlConfig(const CLI::App& app) : app_(app) {}

  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;
  /// All configurable options by group with the values in force.
  std::string to_config(const CLI::App* app, bool default_also, bool write_description,
                        std::string prefix) const override;

 private:
  const CLI::App& app_;
};

}  // namespace cadre
