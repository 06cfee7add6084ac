#pragma once

/// A JSON value that knows its path, so that every complaint names the file and the field.

#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "cadre/base/error.h"

namespace cadre::bpe {

class Field {
 public:
  Field(const nlohmann::json& value, std::string path) : value_(&value), path_(std::move(path)) {}

  const nlohmann::json& value() const { return *value_; }
  bool is_null() const { return value_->is_null(); }
  /// There, and not null.
  bool has(const char* key) const;
  /// Whether it is an object whose "type" is this.
  bool has_type(const char* type) const;

  /// The member; fails when it is missing.
  Field at(const char* key) const;
  bool flag(const char* key, bool otherwise) const;
  std::string text(const char* key) const;
  /// This value as an integer in [0, limit).
  int64_t index(int64_t limit) const;
  /// The elements of an array.
  std::vector<Field> items() const;

  template <typename... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    throw FormatError("{}: {}", path_, fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  const nlohmann::json* value_;
  std::string path_;
};

}  // namespace cadre::bpe
