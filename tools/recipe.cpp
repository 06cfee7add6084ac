/// cadre recipe: published systems beside their baselines, with a verdict.

#include <fmt/format.h>

#include <iostream>

#include "cadre/base/error.h"
#include "cadre/base/interrupt.h"
#include "cadre/base/log.h"
#include "cadre/base/main.h"
#include "cadre/base/memory.h"
#include "cadre/base/table.h"
#include "cadre/formats/file.h"
#include "recipes/harness/report.h"
#include "recipes/recipes.h"
#include "tools/common/command_line.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using namespace cadre::recipes;
using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

struct Options {
  std::string name, data, out, recipes = "recipes";
  int64_t seeds = 0;
  bool smoke = false, sabotage = false, json = false;
};

void add_options(CommandLine& line, Options& options) {
  line.add("recipe", "recipe", options.name,
           "A recipe's name; 'list' shows them, 'report' writes docs/zoo.md")
      ->required();
  line.add("run", "--seeds", options.seeds, "Seeds an arm; 0 = 3, in a smoke run 1")
      ->check(CLI::Range(0, 1000));
  line.add_flag("run", "--smoke", options.smoke, "A short run that shows the recipe works");
  line.add_flag("run", "--sabotage", options.sabotage,
                "Swap the idea for a stub: the criterion must fail");
  line.add(kDataGroup, "--data", options.data, "Look for data sets in this folder first");
  line.add(kOutputGroup, "--out", options.out,
           "Folder for results.json, RESULTS.md, pictures and finished runs (default "
           "results/NAME); of report: the file (default docs/zoo.md)");
  line.add(kOutputGroup, "--recipes", options.recipes,
           "report: the folder that holds NAME/results.json");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
}

int list(const Options& options) {
  Json json = Json::array();
  Table table({"recipe", "paper", "claim"});
  for (const RecipeEntry& entry : all_recipes()) {
    json.push_back({{"recipe", entry.name}, {"paper", entry.paper}, {"claim", entry.claim}});
    table.add_row({entry.name, entry.paper, entry.claim});
  }
  std::cout << (options.json ? pretty(json) : table.str());
  return 0;
}

int report(const Options& options) {
  const fs::path out = options.out.empty() ? "docs/zoo.md" : options.out;
  write_file(out, zoo_markdown(all_recipes(), options.recipes));
  std::cout << fmt::format("wrote {}\n", out.string());
  return 0;
}

std::string suffix(const Options& options) {
  return fmt::format("{}{}", options.smoke ? "-smoke" : "", options.sabotage ? "-sabotage" : "");
}

/// What one would type to see the same.
std::string command(const Options& options) {
  std::string text = "cadre recipe " + options.name;
  if (options.smoke) text += " --smoke";
  if (options.seeds > 0) text += fmt::format(" --seeds {}", options.seeds);
  if (options.sabotage) text += " --sabotage";
  return text;
}

int run_one(const Options& options) {
  const RecipeEntry& entry = recipe_named(options.name);
  if (!options.data.empty() && !fs::is_directory(options.data)) {
    throw UsageError("--data: {} is no folder", options.data);
  }
  const fs::path out = options.out.empty() ? fs::path("results") / (options.name + suffix(options))
                                           : fs::path(options.out);
  const Outcome outcome =
      run_recipe(entry, {.setting = {options.smoke ? Size::kSmoke : Size::kFull,
                                     options.sabotage ? Idea::kStub : Idea::kReal},
                         .seeds = options.seeds,
                         .data = options.data,
                         .out = out});
  const Occasion occasion = occasion_now(command(options));
  const Json json = results_json(entry, outcome, occasion);
  write_file(out / "results.json", pretty(json));
  write_file(out / "RESULTS.md", results_markdown(entry, outcome, occasion));
  std::cout << (options.json ? pretty(json) : outcome_text(entry, outcome, Markup::kPlain));
  logger().info("wrote {} and what belongs to it", (out / "RESULTS.md").string());
  return outcome.passed ? 0 : kCriterionFailed;
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("recipe",
                   "Each recipe trains a published system and its baselines in one run, prints one "
                   "table and a verdict. Exit code 3: the criterion does not hold. An interrupted "
                   "run goes on where it stopped.");
  add_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;
  if (options.name == "list") return list(options);
  if (options.name == "report") return report(options);
  return run_one(options);
}

}  // namespace

int main(int argc, char** argv) {
  cadre::keep_freed_memory();
  cadre::install_interrupt_handlers();
  return cadre::run_main("recipe", [&] { return run(argc, argv); });
}
