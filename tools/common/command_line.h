#pragma once

/// A verb's command line: CLI11 with cadre's manners. Options stand in groups; the same options
/// come from a TOML file (`--config`, the group is the table, the long name the key) and flags
/// override the file.

#include <CLI/CLI.hpp>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

namespace cadre {

class CommandLine {
 public:
  /// `verb` must stand in kVerbs, whose line becomes the description; `more` follows it in --help.
  explicit CommandLine(const std::string& verb, const std::string& more = "");

  CLI::App& app() { return app_; }

  /// An option with its help; the default shown is the target's value. Given twice, the last one
  /// counts (a script's options can be overridden by appending); a list collects all.
  template <typename T>
  CLI::Option* add(const std::string& group, const std::string& names, T& target,
                   const std::string& help) {
    CLI::Option* option = app_.add_option(names, target, help)->group(group)->capture_default_str();
    if constexpr (!std::is_same_v<T, std::vector<std::string>>) option->take_last();
    return option;
  }
  CLI::Option* add_flag(const std::string& group, const std::string& names, bool& target,
                        const std::string& help) {
    return app_.add_flag(names, target, help)->group(group)->default_str(target ? "true" : "false");
  }
  /// --config FILE.toml
  void accept_config_file();

  /// Returns an exit code when nothing is left to do (--help, --version). Sets the number of
  /// threads. Throws UsageError in one line, naming the nearest option when one is unknown.
  std::optional<int> parse(int argc, char** argv);
  /// As asked for; 0 = one per core.
  int threads() const { return threads_; }

  /// Every option of every group with its value in force, as the TOML file that --config reads.
  std::string resolved_toml() const;
  /// The values in force of a group's options by name, as text.
  std::map<std::string, std::string> values(const std::string& group) const;

 private:
  CLI::App app_;
  int threads_ = 0;
};

/// The verb's options as JSON {verb, help, more, options: [{names, group, help, type, default,
/// flag, positional}]}, subcommands' options included: what man page and completion are made of.
/// Programs print it for the hidden flag --help-json.
std::string describe(const CLI::App& app, const std::string& verb);

/// Groups that several verbs share.
inline constexpr const char* kModelGroup = "model";
inline constexpr const char* kRouterGroup = "router";
inline constexpr const char* kTrainingGroup = "training";
inline constexpr const char* kDataGroup = "data";
inline constexpr const char* kOutputGroup = "output";

}  // namespace cadre
