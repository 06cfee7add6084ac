#pragma once

/// An operation's parameters: declared once, given by a plan file's step, a command's flags or C++.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace cadre::reshape {

enum class ParamType { kText, kNumber, kInteger, kFlag, kTexts, kNumbers, kAny };

struct ParamSpec {
  const char* name;  ///< in plan files; a command's flag is --name with dashes for underscores
  ParamType type;
  nlohmann::json fallback;  ///< null = required
  const char* help;
};

/// Checked values. An access under a name or type that was not declared throws Error: it is a fault
/// of the operation, not of the user.
class Params {
 public:
  /// `values` is a JSON object; what is absent takes its default, an integer stands for a number
  /// and one value for a list of one. Throws UsageError that begins with `where`: an unknown key
  /// (with the nearest right one), a value of another type, a missing required one.
  Params(std::span<const ParamSpec> specs, const nlohmann::json& values, const std::string& where);

  std::string text(std::string_view name) const;
  double number(std::string_view name) const;
  int64_t integer(std::string_view name) const;
  bool flag(std::string_view name) const;
  std::vector<std::string> texts(std::string_view name) const;
  std::vector<double> numbers(std::string_view name) const;
  const nlohmann::json& any(std::string_view name) const;
  const nlohmann::json& all() const { return values_; }
  /// What errors should begin with.
  const std::string& where() const { return where_; }

 private:
  nlohmann::json values_;
  std::string where_;
};

}  // namespace cadre::reshape
