#include "cadre/ensemble/category_router_file.h"

#include <fmt/format.h>

#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "cadre/base/error.h"
#include "cadre/formats/json.h"
#include "cadre/formats/safetensors.h"

namespace cadre::ensemble {
namespace {

constexpr const char* kFormat = "cadre category router";

using Metadata = std::map<std::string, std::string>;

std::vector<float> floats_of(const SafetensorsReader& file, const std::string& name) {
  const TensorView& tensor = file.tensor(name);
  if (tensor.dtype != DType::kF32) throw FormatError("tensor {} is not F32", name);
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

const std::string& field_of(const Metadata& metadata, const std::string& name) {
  const auto found = metadata.find(name);
  if (found == metadata.end()) throw FormatError("its metadata have no {}", name);
  return found->second;
}

double number_of(const Metadata& metadata, const std::string& name) {
  const std::string& text = field_of(metadata, name);
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') throw FormatError("{} is '{}', no number", name, text);
  return value;
}

std::vector<std::string> names_of(const Metadata& metadata) {
  const auto list = parse_json(field_of(metadata, "categories"), "categories");
  std::vector<std::string> names;
  if (!list.is_array()) throw FormatError("categories is no list");
  for (const auto& name : list) {
    if (!name.is_string()) throw FormatError("categories has something else than names");
    names.push_back(name.get<std::string>());
  }
  return names;
}

void check_names(const std::vector<std::string>& names, int64_t categories) {
  const std::set<std::string> different(names.begin(), names.end());
  if (static_cast<int64_t>(names.size()) != categories || different.size() != names.size()) {
    throw UsageError("category router: {} different names for {} categories", different.size(),
                     categories);
  }
}

NamedCategories read(const SafetensorsReader& file) {
  const Metadata& metadata = file.metadata();
  if (field_of(metadata, "format") != kFormat) throw FormatError("it is no category router");
  std::vector<std::string> names = names_of(metadata);
  CategoryRouter::Fitted fitted = {
      .ngrams = {.features = static_cast<int64_t>(number_of(metadata, "features")),
                 .shortest = static_cast<int>(number_of(metadata, "shortest")),
                 .longest = static_cast<int>(number_of(metadata, "longest"))},
      .categories = static_cast<int64_t>(names.size()),
      .weights = floats_of(file, "weight"),
      .bias = floats_of(file, "bias"),
      .temperature = number_of(metadata, "temperature"),
      .threshold = number_of(metadata, "threshold")};
  check_names(names, fitted.categories);
  return {.router = CategoryRouter(std::move(fitted)), .names = std::move(names)};
}

}  // namespace

void write_category_router(const std::filesystem::path& path, const NamedCategories& categories) {
  const CategoryRouter::Fitted& f = categories.router.fitted();
  check_names(categories.names, f.categories);
  SafetensorsWriter writer(path,
                           {{"weight", DType::kF32, {f.ngrams.features, f.categories}},
                            {"bias", DType::kF32, {f.categories}}},
                           {{"format", kFormat},
                            {"categories", nlohmann::json(categories.names).dump()},
                            {"features", fmt::format("{}", f.ngrams.features)},
                            {"shortest", fmt::format("{}", f.ngrams.shortest)},
                            {"longest", fmt::format("{}", f.ngrams.longest)},
                            {"temperature", fmt::format("{}", f.temperature)},
                            {"threshold", fmt::format("{}", f.threshold)}});
  writer.write("weight", std::as_bytes(std::span(f.weights)));
  writer.write("bias", std::as_bytes(std::span(f.bias)));
  writer.commit();
}

NamedCategories read_category_router(const std::filesystem::path& path) {
  const SafetensorsReader file(path);
  try {
    return read(file);
  } catch (const IoError&) {
    throw;
  } catch (const UsageError& error) {
    throw FormatError("{}: {}", path.string(), error.what());
  }
}

}  // namespace cadre::ensemble
