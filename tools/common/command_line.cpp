#include "tools/common/command_line.h"

#include <nlohmann/json.hpp>

#include <iostream>
#include <memory>

#include "cadre/base/error.h"
#include "cadre/base/parallel.h"
#include "cadre/base/text.h"
#include "tools/common/toml_config.h"
#include "tools/common/verbs.h"

namespace cadre {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMaxThreads = 1024;

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* option : app.get_options()) {
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

/// What CLI11 found wrong, in cadre's words: one line, with the nearest option for an unknown one.
std::string explain(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App* parsed = &app;
  for (const auto* sub : app.get_subcommands()) parsed = sub;
  const std::vector<std::string> left = parsed->remaining();
  if (dynamic_cast<const CLI::ExtrasError*>(&error) == nullptr || left.empty()) {
    return one_line(error.what());
  }
  const std::string word = left.front().substr(0, left.front().find('='));
  if (!word.starts_with('-')) return fmt::format("unexpected argument '{}'", word);
  return fmt::format("unknown option '{}'{}", word, did_you_mean(word, option_names(*parsed)));
}

Json describe_option(const CLI::Option& option) {
  Json names = Json::array();
  for (const auto& name : option.get_snames()) names.push_back("-" + name);
  for (const auto& name : option.get_lnames()) names.push_back("--" + name);
  return {{"names", names},
          {"positional", option.get_positional() ? option.get_name(true) : ""},
          {"group", option.get_group()},
          {"help", option.get_description()},
          {"type", option.get_expected_min() == 0 ? "" : option.get_type_name()},
          {"default", option.get_expected_min() == 0 ? "" : option.get_default_str()},
          {"required", option.get_required()}};
}

Json describe_app(const CLI::App& app, const std::string& name) {
  Json options = Json::array();
  for (const auto* option : app.get_options()) {
    if (!option->get_group().empty()) options.push_back(describe_option(*option));
  }
  Json subcommands = Json::array();
  for (const auto* sub : app.get_subcommands({})) {
    subcommands.push_back(describe_app(*sub, sub->get_name()));
  }
  return {{"verb", name},
          {"help", app.get_description()},
          {"more", app.get_footer()},
          {"options", options},
          {"subcommands", subcommands}};
}

}  // namespace

std::string describe(const CLI::App& app, const std::string& verb) {
  return describe_app(app, verb).dump(2);
}

CommandLine::CommandLine(const std::string& verb, const std::string& more)
    : app_(std::string(verb_named(verb).help), "cadre " + verb) {
  app_.footer(more);
  app_.set_version_flag("--version", "cadre " CADRE_VERSION);
  app_.get_formatter()->column_width(34);
  app_.add_option("--threads", threads_, "Threads to compute with; 0 = one per core")
      ->group("general")
      ->take_last()
      ->check(CLI::Range(0, kMaxThreads))
      ->capture_default_str();
}

void CommandLine::accept_config_file() {
  app_.set_config("--config", "",
                  "Read options from this TOML file ([group] name = value); flags override it")
      ->group("general")
      ->configurable(false);
  app_.config_formatter(std::make_shared<TomlConfig>(app_));
}

std::optional<int> CommandLine::parse(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "--help-json") {
    std::cout << describe(app_, app_.get_name().substr(std::string("cadre ").size())) << '\n';
    return 0;
  }
  try {
    app_.parse(argc, argv);
  } catch (const CLI::Success& done) {  // --help, --version
    return app_.exit(done);
  } catch (const CLI::ParseError& error) {
    throw UsageError("{} ({} --help shows the options)", explain(app_, error), app_.get_name());
  }
  if (threads_ > 0) set_num_threads(threads_);
  return std::nullopt;
}

std::string CommandLine::resolved_toml() const {
  return TomlConfig(app_).to_config(&app_, true, false, "");
}

std::map<std::string, std::string> CommandLine::values(const std::string& group) const {
  std::map<std::string, std::string> values;
  for (const auto* option : app_.get_options()) {
    if (option->get_group() != group || option->get_lnames().empty()) continue;
    values[option->get_lnames().front()] =
        option->empty() ? option->get_default_str()
                        : fmt::format("{}", fmt::join(option->reduced_results(), ","));
  }
  return values;
}

}  // namespace cadre
