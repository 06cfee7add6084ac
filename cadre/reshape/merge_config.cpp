#include "cadre/reshape/merge_config.h"

#include <algorithm>
#include <array>
#include <filesystem>

#include "cadre/base/error.h"
#include "cadre/base/text.h"
#include "cadre/formats/json.h"
#include "cadre/reshape/merge_methods.h"

namespace cadre::reshape {
namespace {

using nlohmann::json;

constexpr size_t kMaxLayers = 100000;

void known_keys(const json& object, const std::vector<std::string>& names,
                const std::string& where) {
  if (!object.is_object()) throw UsageError("{}: must be a table of keys", where);
  for (const auto& [key, value] : object.items())
    if (std::find(names.begin(), names.end(), key) == names.end())
      throw UsageError("{}: unknown key {}{} (known: {})", where, quote(key),
                       did_you_mean(key, names), fmt::join(names, ", "));
}

std::string text_of(const json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return "";
  if (!found->is_string()) throw UsageError("{}: key \"{}\" must be a text", where, key);
  return found->get<std::string>();
}

const json& list_of(const json& object, const char* key, const std::string& where) {
  const json& list = object.at(key);
  if (!list.is_array() || list.empty())
    throw UsageError("{}: key \"{}\" must be a list that is not empty", where, key);
  return list;
}

void check_setting(const json& setting, const std::string& where, int depth = 0) {
  if (depth > 4) throw UsageError("{}: is nested too deeply", where);
  const auto scalar = [](const json& v) {
    return v.is_number() || v.is_boolean() || v.is_string();
  };
  if (scalar(setting)) return;
  if (setting.is_object()) {
    known_keys(setting, {"value", "filter"}, where);
    if (!setting.contains("value")) throw UsageError("{}: key \"value\" is missing", where);
    text_of(setting, "filter", where);
    return check_setting(setting.at("value"), where, depth + 1);
  }
  if (!setting.is_array() || setting.empty())
    throw UsageError("{}: must be a value, a list of values or of {{filter, value}}", where);
  const bool conditions =
      std::any_of(setting.begin(), setting.end(), [](const json& v) { return v.is_object(); });
  for (const json& entry : setting) {
    if (conditions ? !entry.is_object() : !scalar(entry))
      throw UsageError("{}: mixes values and {{filter, value}}", where);
    check_setting(entry, where, depth + 1);
  }
}

json parameters_of(const json& object, const std::string& method, const std::string& where) {
  const auto found = object.find("parameters");
  if (found == object.end() || found->is_null()) return json::object();
  const std::string at = where + ": parameters";
  known_keys(*found, merge_method_named(method).parameter_names(), at);
  for (const auto& [key, value] : found->items()) check_setting(value, at + "." + key);
  return *found;
}

std::string model_of(const json& object, const char* key, const std::string& where) {
  const std::string model = text_of(object, key, where);
  if (model.empty()) throw UsageError("{}: key \"{}\" is missing", where, key);
  if (model.find('+') != std::string::npos && !std::filesystem::exists(model))
    throw UsageError(
        "{}: {}: adapters as models are not supported; apply them with cadre delta "
        "first",
        where, quote(model));
  return model;
}

MergeSource source_of(const json& object, const std::string& method, const std::string& where) {
  known_keys(object, {"model", "layer_range", "parameters", "fisher"}, where);
  MergeSource source = {.model = model_of(object, "model", where),
                        .fisher = text_of(object, "fisher", where),
                        .parameters = parameters_of(object, method, where)};
  if (!object.contains("layer_range")) return source;
  const json& range = object.at("layer_range");
  const auto index = [](const json& v) {
    return v.is_number_integer() && v >= 0 && v <= kMaxLayers;
  };
  if (!range.is_array() || range.size() != 2 || !index(range[0]) || !index(range[1]) ||
      range[0] >= range[1])
    throw UsageError("{}: key \"layer_range\" must be [first, last) with first < last", where);
  source.first_layer = range[0].get<int64_t>();
  source.last_layer = range[1].get<int64_t>();
  return source;
}

std::vector<MergeSlice> slices_of(const json& document, const MergeConfig& config) {
  std::vector<MergeSlice> slices;
  if (document.contains("models")) {
    MergeSlice slice = {.parameters = json::object()};
    size_t i = 0;
    for (const json& model : list_of(document, "models", config.where)) {
      const std::string at = fmt::format("{}: models[{}]", config.where, i++);
      slice.sources.push_back(source_of(model, config.method, at));
      if (slice.sources.back().last_layer >= 0)
        throw UsageError("{}: key \"layer_range\" stands in slices only", at);
    }
    return {std::move(slice)};
  }
  size_t i = 0;
  for (const json& object : list_of(document, "slices", config.where)) {
    const std::string at = fmt::format("{}: slices[{}]", config.where, i++);
    known_keys(object, {"sources", "base_model", "parameters"}, at);
    if (!object.contains("sources")) throw UsageError("{}: key \"sources\" is missing", at);
    MergeSlice slice = {.base = text_of(object, "base_model", at),
                        .parameters = parameters_of(object, config.method, at)};
    size_t j = 0;
    for (const json& source : list_of(object, "sources", at)) {
      const std::string place = fmt::format("{}: sources[{}]", at, j++);
      slice.sources.push_back(source_of(source, config.method, place));
      const MergeSource& first = slice.sources.front();
      const MergeSource& last = slice.sources.back();
      if (last.last_layer < 0) throw UsageError("{}: key \"layer_range\" is missing", place);
      if (last.last_layer - last.first_layer != first.last_layer - first.first_layer)
        throw UsageError("{}: has another number of layers than the slice's first source", place);
    }
    slices.push_back(std::move(slice));
  }
  return slices;
}

void name_models(MergeConfig& config) {
  const auto name = [&](const std::string& model) {
    auto& all = config.models;
    if (!model.empty() && std::find(all.begin(), all.end(), model) == all.end())
      all.push_back(model);
  };
  for (const MergeSlice& slice : config.slices)
    for (const MergeSource& source : slice.sources) {
      name(source.model);
      name(source.fisher);
    }
  name(config.base);
  for (const MergeSlice& slice : config.slices) name(slice.base);
  if (config.tokenizer_source != "base") name(config.tokenizer_source);
}

/// Between the neighbours of place t of a list.
json gradient_at(const json& list, double t) {
  const bool numbers =
      std::all_of(list.begin(), list.end(), [](const json& v) { return v.is_number(); });
  const double place = t * static_cast<double>(list.size() - 1);
  const auto before = static_cast<size_t>(place);
  if (!numbers) return list[before];
  const size_t after = std::min(list.size() - 1, before + 1);
  const double share = place - static_cast<double>(before);
  return (1 - share) * list[before].get<double>() + share * list[after].get<double>();
}

std::optional<json> evaluate(const json& setting, const std::string& tensor, double t) {
  if (setting.is_object()) return evaluate(json::array({setting}), tensor, t);
  if (!setting.is_array()) return setting;
  if (!setting.front().is_object()) return gradient_at(setting, t);
  for (const json& condition : setting) {
    const auto filter = condition.find("filter");
    const bool all = filter == condition.end() || filter->is_null() || *filter == "*";
    if (all || tensor.find(filter->get<std::string>()) != std::string::npos)
      return evaluate(condition.at("value"), tensor, t);
  }
  return std::nullopt;
}

}  // namespace

MergeConfig parse_merge_config(const json& document, const std::string& where) {
  known_keys(document,
             {"merge_method", "models", "slices", "modules", "base_model", "dtype", "out_dtype",
              "tokenizer_source", "tokenizer", "chat_template", "parameters", "name"},
             where);
  for (const char* key : {"modules", "tokenizer", "chat_template"})
    if (document.contains(key) && !document.at(key).is_null())
      throw UsageError("{}: key \"{}\" is not supported", where, key);
  MergeConfig config = {.method = text_of(document, "merge_method", where),
                        .base = text_of(document, "base_model", where),
                        .dtype = text_of(document, "dtype", where),
                        .out_dtype = text_of(document, "out_dtype", where),
                        .tokenizer_source = text_of(document, "tokenizer_source", where),
                        .where = where};
  if (config.method.empty()) throw UsageError("{}: key \"merge_method\" is missing", where);
  merge_method_named(config.method);
  if (config.tokenizer_source == "union")
    throw UsageError("{}: tokenizer_source union is not supported; name one model, or base", where);
  if (document.contains("models") == document.contains("slices"))
    throw UsageError("{}: must have one of \"models\" and \"slices\"", where);
  config.parameters = parameters_of(document, config.method, where);
  config.slices = slices_of(document, config);
  name_models(config);
  return config;
}

std::optional<json> merge_parameter(const MergeConfig& config, const MergeSlice& slice,
                                    const MergeSource* source, const std::string& name,
                                    const std::string& tensor, double t) {
  const std::array<const json*, 3> places = {source == nullptr ? nullptr : &source->parameters,
                                             &slice.parameters, &config.parameters};
  for (const json* parameters : places) {
    if (parameters == nullptr || !parameters->contains(name)) continue;
    if (const auto value = evaluate(parameters->at(name), tensor, t)) return value;
  }
  return std::nullopt;
}

}  // namespace cadre::reshape
