#include "cadre/formats/router_config.h"

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <type_traits>

#include "cadre/base/error.h"
#include "cadre/formats/json.h"
#include "cadre/formats/router_kinds.h"

namespace cadre {
namespace {

using nlohmann::json;

/// A default as a value.
RouterValue value_of(const RouterOption& option) {
  return std::visit(
      [](const auto& value) -> RouterValue {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, std::string_view>) {
          return std::string(value);
        } else {
          return value;
        }
      },
      option.fallback);
}

template <class T>
T get(const RouterConfig& config, const std::string& name) {
  const RouterOption& option = option_named(router_kind_named(config.kind), name);
  const auto found = config.options.find(name);
  const RouterValue value = found == config.options.end() ? value_of(option) : found->second;
  if (const T* typed = std::get_if<T>(&value)) return *typed;
  throw UsageError("router {}: option {} is of another type", config.kind, name);
}

const char* type_of(const RouterOption& option) {
  constexpr const char* kNames[] = {"true or false", "a whole number", "a number", "text"};
  return kNames[option.fallback.index()];
}

[[noreturn]] void wrong_type(const RouterConfig& config, const RouterOption& option,
                             const std::string& given) {
  throw UsageError("router {}: {} is {}, must be {}", config.kind, option.name, given,
                   option.choices.empty() ? type_of(option) : choices_of(option));
}

template <class T>
bool parse(const std::string& text, T& value) {
  const char* end = text.data() + text.size();
  const auto result = std::from_chars(text.data(), end, value);
  return result.ec == std::errc() && result.ptr == end;
}

/// Text as a value of the option's type; false when it is not.
bool parse_value(const std::string& text, RouterValue& value) {
  if (auto* integer = std::get_if<int64_t>(&value)) return parse(text, *integer);
  if (auto* real = std::get_if<double>(&value)) return parse(text, *real);
  if (auto* flag = std::get_if<bool>(&value)) {
    *flag = text == "true";
    return text == "true" || text == "false";
  }
  value = text;
  return true;
}

/// JSON as a value of the option's type; false when it is not. A whole number is a number, too.
bool json_value(const json& from, RouterValue& value) {
  if (auto* integer = std::get_if<int64_t>(&value)) {
    if (!from.is_number_integer()) return false;
    if (from.is_number_unsigned() && from.get<uint64_t>() > INT64_MAX) return false;
    *integer = from.get<int64_t>();
    return true;
  }
  if (std::holds_alternative<double>(value)) {
    if (!from.is_number()) return false;
    value = from.get<double>();
    return true;
  }
  if (std::holds_alternative<bool>(value)) {
    if (!from.is_boolean()) return false;
    value = from.get<bool>();
    return true;
  }
  if (!from.is_string()) return false;
  value = from.get<std::string>();
  return true;
}

void check_number(const RouterConfig& config, const RouterOption& option, double value) {
  const auto [low, high, open] = option.range;
  if (std::isfinite(value) && value <= high && (open ? value > low : value >= low)) return;
  throw UsageError("router {}: {} is {}, must be {} {}{}", config.kind, option.name, value,
                   open ? "above" : "at least", low,
                   high < 1e9 ? fmt::format(" and at most {}", high) : "");
}

void check_text(const RouterConfig& config, const RouterOption& option, const std::string& value) {
  if (option.choices.empty()) return;
  const std::string all = fmt::format("|{}|", option.choices);
  if (value.find('|') == std::string::npos && all.find("|" + value + "|") != std::string::npos) {
    return;
  }
  wrong_type(config, option, quote(value));
}

void check_value(const RouterConfig& config, const RouterOption& option, const RouterValue& value) {
  if (value.index() != option.fallback.index()) wrong_type(config, option, "of another type");
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    check_number(config, option, static_cast<double>(*integer));
  } else if (const auto* real = std::get_if<double>(&value)) {
    check_number(config, option, *real);
  } else if (const auto* text = std::get_if<std::string>(&value)) {
    check_text(config, option, *text);
  }
}

/// A default that stands for "not given".
bool is_absent(const RouterOption& option) {
  const auto* integer = std::get_if<int64_t>(&option.fallback);
  return integer && static_cast<double>(*integer) < option.range.low;
}

void check_options(const RouterConfig& config) {
  const RouterKind& kind = router_kind_named(config.kind);
  for (const auto& [name, value] : config.options) {
    check_value(config, option_named(kind, name), value);
  }
}

RouterConfig parse_object(const json& j) {
  if (!j.is_object()) throw UsageError("must be an object with a \"kind\"");
  const auto kind = j.find("kind");
  if (kind == j.end() || !kind->is_string()) throw UsageError("must name its \"kind\"");
  RouterConfig config{.kind = kind->get<std::string>()};
  const RouterKind& entry = router_kind_named(config.kind);
  for (const auto& [name, given] : j.items()) {
    if (name == "kind") continue;
    const RouterOption& option = option_named(entry, name);
    RouterValue value = value_of(option);
    if (!json_value(given, value)) wrong_type(config, option, given.dump(-1, ' ', true));
    config.options[name] = value;
  }
  check_options(config);
  return config;
}

}  // namespace

int64_t RouterConfig::integer(const std::string& name) const { return get<int64_t>(*this, name); }
double RouterConfig::real(const std::string& name) const { return get<double>(*this, name); }
bool RouterConfig::flag(const std::string& name) const { return get<bool>(*this, name); }
std::string RouterConfig::text(const std::string& name) const {
  return get<std::string>(*this, name);
}

int64_t slots_of(const RouterConfig& config, const RouterShape& shape) {
  const int64_t k = config.integer("k");
  return k > 0 ? k : shape.experts_per_token;
}

void set_router_option(RouterConfig& config, const std::string& name, const std::string& text) {
  const RouterOption& option = option_named(router_kind_named(config.kind), name);
  RouterValue value = value_of(option);
  if (!parse_value(text, value)) wrong_type(config, option, quote(text));
  check_value(config, option, value);
  config.options[name] = value;
}

void check_router(const RouterConfig& config, const RouterShape& shape) {
  if (config.is_standard()) return;
  check_options(config);
  const RouterKind& kind = router_kind_named(config.kind);
  if (kind.check) kind.check(config, shape);
}

RouterConfig parse_router_config(const json& j, const std::string& where) {
  try {
    return parse_object(j);
  } catch (const UsageError& error) {
    throw FormatError("{}: {}", where, error.what());
  }
}

json to_json(const RouterConfig& config) {
  json j = {{"kind", config.kind}};
  for (const RouterOption& option : router_kind_named(config.kind).options) {
    const auto found = config.options.find(std::string(option.name));
    if (found == config.options.end() && is_absent(option)) continue;
    std::visit([&](const auto& value) { j[std::string(option.name)] = value; },
               found == config.options.end() ? value_of(option) : found->second);
  }
  return j;
}

}  // namespace cadre
