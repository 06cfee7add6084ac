#include "tools/common/json_text.h"

#include <fmt/format.h>

namespace cadre {
namespace {

std::string shown(const nlohmann::json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

}  // namespace

std::string first_difference(const nlohmann::json& before, const nlohmann::json& now) {
  for (const auto& [name, value] : now.items()) {
    const auto found = before.find(name);
    if (found != before.end() && *found == value) continue;
    const std::string old = found == before.end() ? "(unknown)" : shown(*found);
    return fmt::format("--{} {}, now {}", name, old, shown(value));
  }
  return "";
}

std::string pretty(const nlohmann::ordered_json& json) {
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace cadre
