#include "cadre/engine/expert_names.h"

#include <fmt/format.h>

#include <charconv>
#include <string_view>

namespace cadre::engine {
namespace {

constexpr std::string_view kStack = "_exps.weight", kEnd = ".weight";
constexpr std::string_view kMapKey = "cadre.expert_map.";

}  // namespace

bool is_routed_expert(const std::string& name) {
  if (!name.starts_with("blk.") || !name.ends_with(kEnd)) return false;
  if (name.find(".ffn_") == std::string::npos) return false;
  if (name.ends_with(kStack)) return true;
  const std::string stem = name.substr(0, name.size() - kEnd.size());
  const size_t dot = stem.rfind('.');
  return dot + 1 < stem.size() &&
         stem.find_first_not_of("0123456789", dot + 1) == std::string::npos;
}

std::string single_expert_name(const std::string& stacked_name, int64_t expert) {
  return fmt::format("{}.{}.weight", stacked_name.substr(0, stacked_name.find(kStack)), expert);
}

int64_t layer_of_tensor(const std::string& name) {
  int64_t layer = -1;
  if (name.starts_with("blk.")) std::from_chars(name.data() + 4, name.data() + name.size(), layer);
  return layer;
}

std::string expert_map_key(int64_t layer) { return fmt::format("{}{}", kMapKey, layer); }

std::optional<int64_t> layer_of_map_key(const std::string& key) {
  if (!key.starts_with(kMapKey)) return std::nullopt;
  int64_t layer = -1;
  const char* end = key.data() + key.size();
  const auto [stop, error] = std::from_chars(key.data() + kMapKey.size(), end, layer);
  return error == std::errc() && stop == end ? std::optional(layer) : std::nullopt;
}

}  // namespace cadre::engine
