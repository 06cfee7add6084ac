#pragma once

/// A model's hyper-parameters under GGUF's names ("block_count", without the architecture's
/// prefix), whichever file they came from.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace cadre::engine {

using KeyValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>>;

class KeyValues {
 public:
  /// `where` (a file) names the source in errors, `prefix` ("olmoe.") is shown before each key.
  KeyValues(std::string where, std::string prefix)
      : where_(std::move(where)), prefix_(std::move(prefix)) {}

  void set(const std::string& key, KeyValue value) { values_[key] = std::move(value); }
  /// What the file calls this key, for errors.
  void alias(const std::string& key, std::string name) { aliases_[key] = std::move(name); }
  bool contains(const std::string& key) const { return values_.contains(key); }

  /// Throw FormatError when the key is missing (first forms) or of another type.
  int64_t integer(const std::string& key) const;
  int64_t integer(const std::string& key, int64_t fallback) const;
  float number(const std::string& key) const;
  float number(const std::string& key, float fallback) const;
  bool flag(const std::string& key, bool fallback) const;
  std::string text(const std::string& key, const std::string& fallback) const;

  /// An integer in [low, high]: sizes come from files that nobody vouches for.
  int64_t size(const std::string& key, int64_t low, int64_t high) const;
  int64_t size(const std::string& key, int64_t low, int64_t high, int64_t fallback) const;

  [[noreturn]] void fail(const std::string& key, const std::string& what) const;
  const std::string& where() const { return where_; }

 private:
  const KeyValue* find(const std::string& key) const;
  const KeyValue& require(const std::string& key) const;

  std::string where_, prefix_;
  std::map<std::string, KeyValue> values_;
  std::map<std::string, std::string> aliases_;
};

}  // namespace cadre::engine
