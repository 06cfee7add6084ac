/// cadre lora: low-rank adapters of PEFT's format, into models and out of them.

#include <nlohmann/json.hpp>

#include <iostream>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/units.h"
#include "cadre/reshape/lora.h"
#include "cadre/reshape/run.h"
#include "tools/common/command_line.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using namespace cadre::reshape;
using Json = nlohmann::ordered_json;

struct Options {
  std::filesystem::path base, tuned, adapter, out;
  std::vector<std::string> adapters;
  std::vector<std::string> modules;
  std::vector<double> weights;
  double weight = 1;
  int64_t rank = 16;
  std::string memory = "2GiB";
  bool json = false;
};

void print(const LoraAdapter& adapter, const Options& options) {
  int64_t parameters = 0, largest = 0;
  for (const auto& [name, m] : adapter.modules) {
    parameters += m.rank * (m.in + m.out);
    largest = std::max(largest, m.rank);
  }
  const Json json = {{"out", options.out.string()},
                     {"modules", adapter.modules.size()},
                     {"rank", largest},
                     {"parameters", parameters}};
  if (options.json) {
    std::cout << pretty(json);
  } else {
    std::cout << fmt::format("{}: {} modules, rank up to {}, {} parameters\n", options.out.string(),
                             adapter.modules.size(), largest,
                             format_count(static_cast<double>(parameters)));
  }
}

int merge(const Options& options) {
  const std::vector<CheckpointPtr> inputs = {open_checkpoint(options.base)};
  const LoraAdapter adapter = read_lora(options.adapter);
  const Plan plan = merge_lora(inputs[0], adapter, options.weight);
  const auto budget = static_cast<int64_t>(parse_bytes(options.memory));
  run(plan, inputs, options.out, {.budget_bytes = budget});
  print(adapter, options);
  return 0;
}

int extract(const Options& options) {
  const CheckpointPtr base = open_checkpoint(options.base), tuned = open_checkpoint(options.tuned);
  const LoraAdapter adapter =
      extract_lora(*base, *tuned, {.rank = options.rank, .modules = options.modules});
  write_lora(options.out, adapter);
  print(adapter, options);
  return 0;
}

int combine(const Options& options) {
  if (!options.weights.empty() && options.weights.size() != options.adapters.size()) {
    throw UsageError("--weight: {} are given for {} adapters", options.weights.size(),
                     options.adapters.size());
  }
  std::vector<LoraAdapter> adapters;
  for (const std::string& folder : options.adapters) adapters.push_back(read_lora(folder));
  std::vector<WeightedLora> weighted;
  for (size_t i = 0; i < adapters.size(); ++i) {
    weighted.push_back({&adapters[i], options.weights.empty() ? 1 : options.weights[i]});
  }
  const LoraAdapter combined = combine_lora(weighted, options.rank);
  write_lora(options.out, combined);
  print(combined, options);
  return 0;
}

int run_verb(int argc, char** argv) {
  Options options;
  CommandLine line("lora",
                   "Adapters are folders with adapter_config.json and "
                   "adapter_model.safetensors.");
  line.app().require_subcommand(1);
  CLI::App& merge_app = *line.app().add_subcommand("merge", "a base with an adapter added");
  merge_app.add_option("base", options.base, "Checkpoint folder")->required();
  merge_app.add_option("adapter", options.adapter, "Adapter folder")->required();
  merge_app.add_option("out", options.out, "Checkpoint folder to write")->required();
  merge_app.add_option("--weight", options.weight, "The adapter's; -1 takes it away again")
      ->capture_default_str();
  merge_app.add_option("--memory", options.memory, "Budget")->capture_default_str();

  CLI::App& extract_app =
      *line.app().add_subcommand("extract", "the adapter that comes nearest to TUNED - BASE");
  extract_app.add_option("base", options.base, "Checkpoint folder")->required();
  extract_app.add_option("tuned", options.tuned, "Checkpoint folder")->required();
  extract_app.add_option("out", options.out, "Adapter folder to write")->required();
  extract_app.add_option("--rank", options.rank, "Of every module")->capture_default_str();
  extract_app.add_option("--module", options.modules,
                         "Last part of a module's name (q_proj); may be repeated; default: every "
                         "matrix but embeddings and the head");

  CLI::App& combine_app = *line.app().add_subcommand("combine", "one adapter of several");
  combine_app.add_option("out", options.out, "Adapter folder to write")->required();
  combine_app.add_option("--adapter", options.adapters, "Folder; may be repeated")->required();
  combine_app.add_option("--weight", options.weights, "One an adapter; default 1");
  combine_app.add_option("--rank", options.rank, "At most; 0 = whatever is exact")
      ->capture_default_str();
  for (CLI::App* app : {&merge_app, &extract_app, &combine_app}) {
    app->add_flag("--json", options.json, "Print JSON");
  }
  if (const auto done = line.parse(argc, argv)) return *done;
  if (merge_app.parsed()) return merge(options);
  return extract_app.parsed() ? extract(options) : combine(options);
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("lora", [&] { return run_verb(argc, argv); });
}
