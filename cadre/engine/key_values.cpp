#include "cadre/engine/key_values.h"

#include <cmath>

#include "cadre/base/error.h"

namespace cadre::engine {
namespace {

/// A per-layer array counts as one number when all its entries are equal.
std::optional<int64_t> as_integer(const KeyValue& value) {
  if (const auto* integer = std::get_if<int64_t>(&value)) return *integer;
  const auto* list = std::get_if<std::vector<int64_t>>(&value);
  if (list == nullptr || list->empty()) return std::nullopt;
  for (const int64_t entry : *list) {
    if (entry != list->front()) return std::nullopt;
  }
  return list->front();
}

}  // namespace

const KeyValue* KeyValues::find(const std::string& key) const {
  const auto found = values_.find(key);
  return found == values_.end() ? nullptr : &found->second;
}

const KeyValue& KeyValues::require(const std::string& key) const {
  const KeyValue* value = find(key);
  if (value == nullptr) fail(key, "is missing");
  return *value;
}

void KeyValues::fail(const std::string& key, const std::string& what) const {
  const auto alias = aliases_.find(key);
  const std::string name = alias == aliases_.end() ? prefix_ + key : alias->second;
  throw FormatError("{}: key \"{}\" {}", where_, name, what);
}

int64_t KeyValues::integer(const std::string& key) const {
  const auto result = as_integer(require(key));
  if (!result) fail(key, "must be one integer for all layers");
  return *result;
}

int64_t KeyValues::integer(const std::string& key, int64_t fallback) const {
  return contains(key) ? integer(key) : fallback;
}

float KeyValues::number(const std::string& key) const {
  const KeyValue& value = require(key);
  double result = NAN;
  if (const auto* real = std::get_if<double>(&value)) result = *real;
  if (const auto* whole = std::get_if<int64_t>(&value)) result = static_cast<double>(*whole);
  if (!std::isfinite(result)) fail(key, "must be a finite number");
  return static_cast<float>(result);
}

float KeyValues::number(const std::string& key, float fallback) const {
  return contains(key) ? number(key) : fallback;
}

bool KeyValues::flag(const std::string& key, bool fallback) const {
  const KeyValue* value = find(key);
  if (value == nullptr) return fallback;
  const auto* result = std::get_if<bool>(value);
  if (result == nullptr) fail(key, "must be true or false");
  return *result;
}

std::string KeyValues::text(const std::string& key, const std::string& fallback) const {
  const KeyValue* value = find(key);
  if (value == nullptr) return fallback;
  const auto* result = std::get_if<std::string>(value);
  if (result == nullptr) fail(key, "must be a string");
  return *result;
}

int64_t KeyValues::size(const std::string& key, int64_t low, int64_t high) const {
  const int64_t value = integer(key);
  if (value < low || value > high) {
    fail(key, fmt::format("is {}, must be from {} to {}", value, low, high));
  }
  return value;
}

int64_t KeyValues::size(const std::string& key, int64_t low, int64_t high, int64_t fallback) const {
  return contains(key) ? size(key, low, high) : fallback;
}

}  // namespace cadre::engine
