#include "tools/common/inspect_gguf.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "cadre/base/table.h"
#include "cadre/base/text.h"
#include "cadre/base/units.h"
#include "cadre/formats/gguf.h"

namespace cadre {
namespace {

using Json = nlohmann::ordered_json;
constexpr uint64_t kShownElements = 8;
constexpr size_t kShownBytes = 60;

Json value_json(const GgufReader& file, const std::string& key, const GgufValue& value) {
  if (const auto* array = std::get_if<GgufArray>(&value)) {
    const bool numbers = array->type != GgufType::kString && array->type != GgufType::kArray;
    if (array->size > kShownElements) return fmt::format("{} elements", array->size);
    if (array->type == GgufType::kString) return file.strings(key);
    if (array->type == GgufType::kF32 || array->type == GgufType::kF64) return file.numbers(key);
    if (numbers && array->type != GgufType::kBool) return file.integers(key);
    return fmt::format("{} elements", array->size);
  }
  return std::visit(
      [](const auto& plain) -> Json {
        if constexpr (std::is_same_v<std::decay_t<decltype(plain)>, GgufArray>) {
          return nullptr;
        } else {
          return plain;
        }
      },
      value);
}

std::string shown(const Json& value) {
  std::string text = value.is_string() ? value.get<std::string>()
                                       : value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kShownBytes) text = text.substr(0, kShownBytes) + "...";
  return one_line(text);
}

std::string shape_text(const GgufTensor& tensor) {
  return fmt::format(
      "[{}]", fmt::join(std::vector<int64_t>(tensor.dims.rbegin(), tensor.dims.rend()), ", "));
}

struct Total {
  int64_t tensors = 0;
  uint64_t bytes = 0;
};

std::map<std::string, Total> totals_of(const GgufReader& file) {
  std::map<std::string, Total> totals;
  for (const GgufTensor& tensor : file.tensors()) {
    Total& total = totals[tensor.type.name];
    ++total.tensors;
    total.bytes += tensor.bytes.size();
  }
  return totals;
}

}  // namespace

void print_gguf(const std::filesystem::path& path, TensorList list) {
  const GgufReader file(path);
  Table keys({"key", "value"});
  for (const auto& [key, value] : file.metadata()) {
    keys.add_row({key, shown(value_json(file, key, value))});
  }
  std::cout << keys.str() << '\n';
  for (const auto& [type, total] : totals_of(file)) {
    std::cout << fmt::format("tensors       {} of {}, {}\n", total.tensors, type,
                             format_bytes(total.bytes));
  }
  if (list == TensorList::kNo) return;
  Table tensors({"tensor", "type", "shape"});
  for (const GgufTensor& tensor : file.tensors()) {
    tensors.add_row({tensor.name, tensor.type.name, shape_text(tensor)});
  }
  std::cout << '\n' << tensors.str();
}

Json gguf_json(const std::filesystem::path& path) {
  const GgufReader file(path);
  Json keys = Json::object(), types = Json::object(), tensors = Json::array();
  for (const auto& [key, value] : file.metadata()) keys[key] = value_json(file, key, value);
  for (const auto& [type, total] : totals_of(file)) {
    types[type] = {{"tensors", total.tensors}, {"bytes", total.bytes}};
  }
  for (const GgufTensor& tensor : file.tensors()) {
    tensors.push_back({{"name", tensor.name},
                       {"type", tensor.type.name},
                       {"shape", std::vector<int64_t>(tensor.dims.rbegin(), tensor.dims.rend())},
                       {"bytes", tensor.bytes.size()}});
  }
  return {{"version", file.version()}, {"keys", keys}, {"types", types}, {"tensors", tensors}};
}

}  // namespace cadre
