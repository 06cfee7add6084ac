#pragma once

/// The kinds of routers: names, options, properties and tensors, which both wings and the command
/// line share. What builds them is in cadre/routing/routers.h (learn) and cadre/engine/router.h
/// (run). A new kind is an entry here and a line there (docs/routing.md).

#include <span>
#include <string_view>

#include "cadre/formats/router_config.h"

namespace cadre {

/// A real or whole number's range; `open` leaves the lower end out.
struct OptionRange {
  double low = 0;
  double high = 1e9;
  bool open = false;
};

struct RouterOption {
  std::string_view name;
  /// The default, which says the type, too. A whole number below `range` stands for "not given".
  std::variant<bool, int64_t, double, std::string_view> fallback;
  std::string_view help;
  OptionRange range = {};         ///< of numbers
  std::string_view choices = {};  ///< of text: "softmax|sigmoid"
};

/// The form of the load-balance loss that a kind's paper has; the coefficient is the model's.
enum class BalanceForm {
  kNone,
  kShare,        ///< f sums to 1 (Switch, DeepSeekMoE)
  kPerToken,     ///< f sums to the mean k (dynamic routing)
  kPooledNulls,  ///< over true and null experts, the nulls' load pooled (AdaMoE)
};

/// A tensor of a router in one layer, named as under "model.layers.N.mlp.gate.".
struct RouterTensor {
  std::string name;
  std::vector<int64_t> shape;
};

struct RouterKind {
  std::string_view name;
  std::string_view help;   ///< one line
  std::string_view paper;  ///< title, year
  /// Row t depends on token t and those before it. Kinds that are not have the option `fallback`,
  /// the router that stands in when text is generated.
  bool causal = true;
  bool batch_invariant = true;
  std::string_view needs = {};  ///< of its caller, beside hidden states: "token ids", "step" ...
  BalanceForm balance = BalanceForm::kShare;
  std::span<const RouterOption> options = {};
  /// The checkpoint's tensors of the `index`-th layer with experts. All are stored in fp32.
  std::vector<RouterTensor> (*tensors)(const RouterConfig&, const RouterShape&, int64_t index);
  /// Throws UsageError for what no single option's range says; may be null.
  void (*check)(const RouterConfig&, const RouterShape&) = nullptr;
};

std::span<const RouterKind> router_kinds();
/// Throws UsageError naming the nearest kind.
const RouterKind& router_kind_named(std::string_view name);
/// The kind's option of that name; throws UsageError naming the nearest one.
const RouterOption& option_named(const RouterKind& kind, std::string_view name);
/// Throws UsageError when text cannot be generated with this router: it looks ahead and names no
/// fallback.
void check_decoding(const RouterConfig& config);
/// "softmax, sigmoid" ...
std::string choices_of(const RouterOption& option);

}  // namespace cadre
