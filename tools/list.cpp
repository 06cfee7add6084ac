/// cadre list: what can be chosen by name.

#include <array>
#include <iostream>
#include <nlohmann/json.hpp>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/table.h"
#include "cadre/base/text.h"
#include "cadre/formats/router_kinds.h"
#include "cadre/objectives/objectives.h"
#include "tools/common/command_line.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using Json = nlohmann::ordered_json;

std::string range_of(const RouterOption& option) {
  if (!option.choices.empty()) return choices_of(option);
  if (std::holds_alternative<bool>(option.fallback)) return "true, false";
  const auto [low, high, open] = option.range;
  const std::string least = fmt::format("{} {}", open ? ">" : ">=", low);
  return high < 1e9 ? fmt::format("{}, <= {}", least, high) : least;
}

/// The default as text; "" when it stands for "not given".
std::string default_of(const RouterOption& option) {
  if (const auto* integer = std::get_if<int64_t>(&option.fallback)) {
    return static_cast<double>(*integer) < option.range.low ? "" : std::to_string(*integer);
  }
  return std::visit([](const auto& value) { return fmt::format("{}", value); }, option.fallback);
}

Json describe(const RouterKind& kind) {
  Json options = Json::array();
  for (const RouterOption& option : kind.options) {
    options.push_back({{"name", option.name},
                       {"default", default_of(option)},
                       {"values", range_of(option)},
                       {"help", option.help}});
  }
  return {{"name", kind.name},     {"help", kind.help},   {"paper", kind.paper},
          {"causal", kind.causal}, {"needs", kind.needs}, {"batch_invariant", kind.batch_invariant},
          {"options", options}};
}

Json routers() {
  Json list = Json::array();
  for (const RouterKind& kind : router_kinds()) list.push_back(describe(kind));
  return list;
}

Json objectives() {
  Json list = Json::array();
  for (const ObjectiveEntry& entry : objectives_list()) {
    list.push_back({{"name", entry.name},
                    {"help", entry.help},
                    {"paper", entry.paper},
                    {"coefficient", entry.coefficient}});
  }
  return list;
}

void print_routers() {
  Table table({"router", "causal", "alone as in a batch", "needs", "what it does"});
  const auto yes = [](bool is) { return is ? "yes" : "no"; };
  for (const RouterKind& kind : router_kinds()) {
    table.add_row({std::string(kind.name), yes(kind.causal), yes(kind.batch_invariant),
                   std::string(kind.needs), std::string(kind.help)});
  }
  std::cout << table.str();
  for (const RouterKind& kind : router_kinds()) {
    std::cout << fmt::format("\n{}: {}\n", kind.name, kind.paper);
    Table options({"  option", "default", "values", ""});
    for (const RouterOption& option : kind.options) {
      options.add_row({fmt::format("  --router-{}", option.name), default_of(option),
                       range_of(option), std::string(option.help)});
    }
    if (!kind.options.empty()) std::cout << options.str();
  }
}

void print_objectives() {
  Table table({"objective", "published", "what it wants", "paper"});
  for (const ObjectiveEntry& entry : objectives_list()) {
    table.add_row({std::string(entry.name), fmt::format("{}", entry.coefficient),
                   std::string(entry.help), std::string(entry.paper)});
  }
  std::cout << table.str();
}

struct List {
  const char* name;
  Json (*json)();
  void (*print)();
};
constexpr std::array kLists = {List{"routers", routers, print_routers},
                               List{"objectives", objectives, print_objectives}};

const List& list_named(const std::string& name) {
  std::vector<std::string> names;
  for (const List& list : kLists) {
    if (name == list.name) return list;
    names.emplace_back(list.name);
  }
  throw UsageError("there is no list of '{}'{} (lists: {})", one_line(name),
                   did_you_mean(name, names), fmt::join(names, ", "));
}

int run(int argc, char** argv) {
  std::string name;
  bool json = false;
  CommandLine line("list", "Lists: routers, objectives.");
  line.add("list", "list", name, "Of what: routers or objectives")->required();
  line.add_flag(kOutputGroup, "--json", json, "Print JSON");
  if (const auto done = line.parse(argc, argv)) return *done;
  const List& list = list_named(name);
  if (json) {
    std::cout << pretty(list.json());
  } else {
    list.print();
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("list", [&] { return run(argc, argv); });
}
