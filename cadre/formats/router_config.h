#pragma once

/// Which router a model has, as `config.json` says it for both wings:
///   "cadre": {"router": {"kind": "top_p", "p": 0.4}}
/// A model without it has its architecture's own top-k. The kinds stand in router_kinds.h.

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

namespace cadre {

using RouterValue = std::variant<bool, int64_t, double, std::string>;

struct RouterConfig {
  std::string kind;                            ///< empty = the architecture's own top-k
  std::map<std::string, RouterValue> options;  ///< by name; what is absent has its kind's default

  bool is_standard() const { return kind.empty(); }
  /// The option's value in force. Throws UsageError for a name or a type that the kind has not.
  int64_t integer(const std::string& name) const;
  double real(const std::string& name) const;
  bool flag(const std::string& name) const;
  std::string text(const std::string& name) const;
  bool operator==(const RouterConfig&) const = default;
};

/// What a router must know of its model.
struct RouterShape {
  int64_t hidden = 0;             ///< D
  int64_t experts = 0;            ///< E
  int64_t experts_per_token = 0;  ///< the K of routers without an own k
  int64_t vocabulary = 0;
  int64_t layers = 0;  ///< those with experts
  double init_std = 0.02;
};

/// The option k, or the model's experts per token when it was not given.
int64_t slots_of(const RouterConfig& config, const RouterShape& shape);

/// Sets one option from its text, as a flag or a TOML file gives it. Throws UsageError naming the
/// nearest option when the kind has none of this name, or when the text is not of its type.
void set_router_option(RouterConfig& config, const std::string& name, const std::string& text);

/// Throws UsageError in one line for an unknown kind or option (naming the nearest), a value of
/// another type or out of range, and what does not fit the model's shape.
void check_router(const RouterConfig& config, const RouterShape& shape);

/// Reading checks kind, names and types, not the shape; throws FormatError that begins with
/// `where`. Writing states the defaults, too: a later default must not change old models.
RouterConfig parse_router_config(const nlohmann::json& json, const std::string& where);
nlohmann::json to_json(const RouterConfig& config);

}  // namespace cadre
