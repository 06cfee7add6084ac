#include "cadre/reshape/params.h"

#include <algorithm>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/formats/json.h"

namespace cadre::reshape {
namespace {

using nlohmann::json;

const char* wanted(ParamType type) {
  switch (type) {
    case ParamType::kText:
      return "a text";
    case ParamType::kNumber:
      return "a number";
    case ParamType::kInteger:
      return "an integer";
    case ParamType::kFlag:
      return "true or false";
    case ParamType::kTexts:
      return "a list of texts";
    case ParamType::kNumbers:
      return "a list of numbers";
    case ParamType::kAny:
      return "anything";
  }
  return "";
}

bool each(const json& value, bool (json::*is)() const noexcept) {
  return value.is_array() &&
         std::all_of(value.begin(), value.end(), [&](const json& v) { return (v.*is)(); });
}

bool fits(const json& value, ParamType type) {
  switch (type) {
    case ParamType::kText:
      return value.is_string();
    case ParamType::kNumber:
      return value.is_number();
    case ParamType::kInteger:
      return value.is_number_integer() &&
             (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
    case ParamType::kFlag:
      return value.is_boolean();
    case ParamType::kTexts:
      return each(value, &json::is_string);
    case ParamType::kNumbers:
      return each(value, &json::is_number);
    case ParamType::kAny:
      return true;
  }
  return false;
}

}  // namespace

Params::Params(std::span<const ParamSpec> specs, const json& values, const std::string& where)
    : values_(json::object()), where_(where) {
  if (!values.is_object()) throw UsageError("{}: parameters must be a table", where);
  std::vector<std::string> names;
  for (const ParamSpec& spec : specs) names.emplace_back(spec.name);
  for (const auto& [key, value] : values.items())
    if (std::find(names.begin(), names.end(), key) == names.end())
      throw UsageError("{}: unknown key {}{} (known: {})", where, quote(key),
                       did_you_mean(key, names), fmt::join(names, ", "));
  for (const ParamSpec& spec : specs) {
    json value = values.contains(spec.name) ? values.at(spec.name) : spec.fallback;
    if (value.is_null() && !values.contains(spec.name)) {
      if (spec.type == ParamType::kAny) continue;
      throw UsageError("{}: key \"{}\" is missing ({})", where, spec.name, spec.help);
    }
    const bool list = spec.type == ParamType::kTexts || spec.type == ParamType::kNumbers;
    if (list && !value.is_array()) value = json::array({value});
    if (!fits(value, spec.type))
      throw UsageError("{}: key \"{}\" must be {}", where, spec.name, wanted(spec.type));
    values_[spec.name] = std::move(value);
  }
}

const json& Params::any(std::string_view name) const {
  static const json kNull;
  const auto found = values_.find(name);
  return found == values_.end() ? kNull : *found;
}

namespace {

template <typename T>
T get(const json& value, std::string_view name) {
  try {
    return value.get<T>();
  } catch (const json::exception&) {
    throw Error("parameter '{}' was not declared with this type", name);
  }
}

}  // namespace

std::string Params::text(std::string_view name) const { return get<std::string>(any(name), name); }
double Params::number(std::string_view name) const { return get<double>(any(name), name); }
int64_t Params::integer(std::string_view name) const { return get<int64_t>(any(name), name); }
bool Params::flag(std::string_view name) const { return get<bool>(any(name), name); }
std::vector<std::string> Params::texts(std::string_view name) const {
  return get<std::vector<std::string>>(any(name), name);
}
std::vector<double> Params::numbers(std::string_view name) const {
  return get<std::vector<double>>(any(name), name);
}

}  // namespace cadre::reshape
