#include "tools/common/toml_config.h"

#include <toml++/toml.h>

#include <algorithm>
#include <iterator>
#include <sstream>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "tools/common/verbs.h"

namespace cadre {
namespace {

std::vector<const CLI::Option*> configurable(const CLI::App& app) {
  return app.get_options([](const CLI::Option* option) {
    return option->get_configurable() && !option->get_lnames().empty() &&
           !option->get_group().empty();
  });
}

std::string name_of(const CLI::Option& option) { return option.get_lnames().front(); }

/// Under [router] --router is `kind` and --router-p is `p`; elsewhere keys are the options' names.
std::string key_of(const std::string& name, const std::string& group) {
  if (name == group) return "kind";
  return name.starts_with(group + "-") ? name.substr(group.size() + 1) : name;
}

std::string key_of(const CLI::Option& option) {
  return key_of(name_of(option), option.get_group());
}

/// Whether a key of the option's table means it, by any of its names.
bool has_key(const CLI::Option& option, const std::string& key) {
  const auto& names = option.get_lnames();
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return name == key || key_of(name, option.get_group()) == key;
  });
}

/// Walks one TOML document and turns its keys into CLI11's items.
class Reader {
 public:
  Reader(const CLI::App& app, std::string file) : app_(app), file_(std::move(file)) {}

  std::vector<CLI::ConfigItem> read(std::istream& input) {
    const std::string text{std::istreambuf_iterator<char>(input), {}};
    try {
      const toml::table document = toml::parse(text, file_);
      for (const auto& [key, node] : document) read_top(std::string(key.str()), node);
    } catch (const toml::parse_error& error) {
      throw UsageError("{}, line {}: {}", file_, error.source().begin.line, error.description());
    }
    return std::move(items_);
  }

 private:
  void read_top(const std::string& key, const toml::node& node) {
    const toml::table* table = node.as_table();
    if (table == nullptr) return read_value("", key, node);
    check_group(key, node);
    for (const auto& [name, value] : *table) read_value(key, std::string(name.str()), value);
  }

  void check_group(const std::string& group, const toml::node& node) const {
    std::vector<std::string> groups;
    for (const auto* option : configurable(app_)) groups.push_back(option->get_group());
    if (std::find(groups.begin(), groups.end(), group) != groups.end()) return;
    throw UsageError("{}, line {}: unknown table [{}]{}", file_, line(node), group,
                     did_you_mean(group, groups));
  }

  void read_value(const std::string& group, const std::string& key, const toml::node& node) {
    const CLI::Option& option = find(group, key, node);
    CLI::ConfigItem item;
    item.name = name_of(option);
    if (const auto* array = node.as_array()) {
      for (const auto& element : *array) item.inputs.push_back(scalar(key, element));
    } else {
      item.inputs.push_back(scalar(key, node));
    }
    items_.push_back(std::move(item));
  }

  const CLI::Option& find(const std::string& group, const std::string& key,
                          const toml::node& node) const {
    std::vector<std::string> keys;
    const CLI::Option* elsewhere = nullptr;
    for (const auto* option : configurable(app_)) {
      const bool in_group = group == option->get_group();
      const bool is_named = option->check_lname(key);
      if (in_group ? has_key(*option, key) : is_named && group.empty()) return *option;
      if (is_named) elsewhere = option;
      keys.push_back(in_group ? key_of(*option) : name_of(*option));
    }
    if (elsewhere) {
      throw UsageError("{}, line {}: '{}' belongs under [{}], not [{}]", file_, line(node), key,
                       elsewhere->get_group(), group);
    }
    throw UsageError("{}, line {}: unknown key '{}'{}", file_, line(node), key,
                     did_you_mean(key, keys));
  }

  std::string scalar(const std::string& key, const toml::node& node) const {
    if (const auto text = node.value_exact<std::string>()) return *text;
    std::ostringstream printed;
    if (const auto boolean = node.value_exact<bool>()) {
      printed << (*boolean ? "true" : "false");
    } else if (const auto integer = node.value_exact<int64_t>()) {
      printed << *integer;
    } else if (const auto real = node.value_exact<double>()) {
      return fmt::format("{}", *real);
    } else {
      throw UsageError(
          "{}, line {}: '{}' must be a number, a string, true or false, or a list of them", file_,
          line(node), key);
    }
    return printed.str();
  }

  static uint32_t line(const toml::node& node) { return node.source().begin.line; }

  const CLI::App& app_;
  std::string file_;
  std::vector<CLI::ConfigItem> items_;
};

/// The value's TOML form: numbers and booleans bare, the rest quoted.
void insert_scalar(auto&& insert, const std::string& text, const CLI::Option& option) {
  const std::string type = option.get_type_name();  // with its range: "INT:POSITIVE"
  int64_t integer = 0;
  double real = 0;
  if (option.get_expected_min() == 0) {
    insert(text == "true" || text == "1");
  } else if ((type.starts_with("INT") || type.starts_with("UINT")) &&
             CLI::detail::lexical_cast(text, integer)) {
    insert(integer);
  } else if (type.starts_with("FLOAT") && CLI::detail::lexical_cast(text, real)) {
    insert(real);
  } else {
    insert(text);
  }
}

void insert_option(toml::table& group, const CLI::Option& option) {
  const std::string key = key_of(option);
  const bool is_list = option.get_items_expected_max() > 1;
  if (!is_list) {
    const std::string text =
        option.empty() ? option.get_default_str() : option.reduced_results().back();
    if (text.empty() && option.get_expected_min() != 0) return;
    insert_scalar([&](auto value) { group.insert(key, value); }, text, option);
    return;
  }
  if (option.empty()) return;
  toml::array list;
  for (const auto& text : option.results()) {
    insert_scalar([&](auto value) { list.push_back(value); }, text, option);
  }
  group.insert(key, std::move(list));
}

}  // namespace

std::vector<CLI::ConfigItem> TomlConfig::from_config(std::istream& input) const {
  return Reader(app_, app_.get_config_ptr()->as<std::string>()).read(input);
}

std::string TomlConfig::to_config(const CLI::App* app, bool /*default_also*/,
                                  bool /*write_description*/, std::string /*prefix*/) const {
  toml::table document;
  for (const auto* option : configurable(*app)) {
    if (!document.contains(option->get_group()))
      document.insert(option->get_group(), toml::table{});
    insert_option(*document[option->get_group()].as_table(), *option);
  }
  std::ostringstream printed;
  printed << document << '\n';
  return printed.str();
}

}  // namespace cadre
