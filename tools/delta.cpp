/// cadre delta: what fine-tuning changed, as a small file; and back.

#include <nlohmann/json.hpp>

#include <cmath>
#include <iostream>
#include <memory>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/table.h"
#include "cadre/base/units.h"
#include "cadre/reshape/delta.h"
#include "cadre/reshape/run.h"
#include "tools/common/command_line.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using namespace cadre::reshape;
using Json = nlohmann::ordered_json;

struct Options {
  std::filesystem::path base, tuned, out;
  std::vector<std::string> deltas;
  std::vector<double> weights;
  double density = 0.2, alpha = 1;
  std::string magnitude = "deviation", merge = "sum", memory = "2GiB";
  bool json = false;
};

TernaryOptions ternary_options(const Options& options) {
  TernaryOptions ternary{.density = options.density, .alpha = options.alpha};
  if (options.magnitude == "mean") ternary.magnitude = TernaryOptions::Magnitude::kMeanKept;
  return ternary;
}

std::vector<WeightedDelta> open_deltas(const Options& options) {
  if (!options.weights.empty() && options.weights.size() != options.deltas.size()) {
    throw UsageError("--weight: {} are given for {} deltas", options.weights.size(),
                     options.deltas.size());
  }
  std::vector<WeightedDelta> deltas;
  for (size_t i = 0; i < options.deltas.size(); ++i) {
    deltas.push_back({.delta = std::make_shared<DeltaReader>(options.deltas[i]),
                      .weight = options.weights.empty() ? 1 : options.weights[i]});
  }
  return deltas;
}

Json json_of(const DeltaReader& delta) {
  const DeltaHeader& header = delta.header();
  const auto entries = static_cast<double>(delta.entries());
  return {{"file", delta.path().string()},
          {"bytes", delta.bytes()},
          {"base", header.base},
          {"tensors", header.tensors.size()},
          {"parameters", delta.entries()},
          {"kept", delta.kept()},
          {"bits_per_parameter", 8.0 * static_cast<double>(delta.bytes()) / entries},
          {"density", header.options.density},
          {"alpha", header.options.alpha},
          {"deviation", header.deviation},
          {"scale", header.scale}};
}

void print(const DeltaReader& delta, const Options& options) {
  const Json json = json_of(delta);
  if (options.json) {
    std::cout << pretty(json);
    return;
  }
  std::cout << fmt::format(
      "{}: {}, {} tensors, {} parameters, {} kept ({:.1f} %) as +-{:.3g}, {:.3f} bits each "
      "({:.1f}x "
      "smaller than half floats), base {}\n",
      delta.path().string(), format_bytes(static_cast<uint64_t>(delta.bytes())),
      delta.header().tensors.size(), format_count(static_cast<double>(delta.entries())),
      format_count(static_cast<double>(delta.kept())),
      100.0 * static_cast<double>(delta.kept()) / static_cast<double>(delta.entries()),
      delta.header().scale, json["bits_per_parameter"].get<double>(),
      16 / json["bits_per_parameter"].get<double>(),
      delta.header().base.empty() ? "none (zeros)" : delta.header().base);
}

int extract(const Options& options) {
  const CheckpointPtr tuned = open_checkpoint(options.tuned);
  const CheckpointPtr base = options.base.empty() ? nullptr : open_checkpoint(options.base);
  extract_delta(options.out, base.get(), *tuned, ternary_options(options));
  print(DeltaReader(options.out), options);
  return 0;
}

int apply(const Options& options) {
  const std::vector<CheckpointPtr> inputs = {open_checkpoint(options.base)};
  const Plan plan = apply_deltas(inputs[0], open_deltas(options));
  const auto budget = static_cast<int64_t>(parse_bytes(options.memory));
  const RunReport report = run(plan, inputs, options.out, {.budget_bytes = budget});
  const Json json = {{"out", options.out.string()},
                     {"deltas", options.deltas},
                     {"tensors", report.after.tensors},
                     {"bytes", report.bytes_written},
                     {"seconds", report.seconds}};
  if (options.json) {
    std::cout << pretty(json);
  } else {
    std::cout << fmt::format("{}: {} tensors, {}\n", options.out.string(), report.after.tensors,
                             format_bytes(static_cast<uint64_t>(report.bytes_written)));
  }
  return 0;
}

int combine(const Options& options) {
  const DeltaMerge merge = options.merge == "ties" ? DeltaMerge::kTies : DeltaMerge::kSum;
  combine_deltas(options.out, open_deltas(options), merge, ternary_options(options));
  print(DeltaReader(options.out), options);
  return 0;
}

/// Each delta, and how alike every two are: the cosine, from counted bits.
int info(const Options& options) {
  std::vector<std::unique_ptr<DeltaReader>> deltas;
  for (const std::string& file : options.deltas) {
    deltas.push_back(std::make_unique<DeltaReader>(file));
    print(*deltas.back(), options);
  }
  if (deltas.size() < 2 || options.json) return 0;
  std::vector<TernaryVector> vectors;
  for (const auto& delta : deltas) vectors.push_back(delta->ternary());
  Table table({"file", "file", "cosine", "entries that differ"});
  for (size_t i = 0; i < vectors.size(); ++i) {
    for (size_t j = i + 1; j < vectors.size(); ++j) {
      const auto &a = vectors[i], &b = vectors[j];
      const double lengths = std::sqrt(squared_length(a) * squared_length(b));
      table.add_row({options.deltas[i], options.deltas[j],
                     fmt::format("{:.3f}", lengths > 0 ? dot(a, b) / lengths : 0),
                     fmt::format("{}", hamming(a, b))});
    }
  }
  std::cout << table.str();
  return 0;
}

void add_ternary_options(CLI::App& app, Options& options) {
  app.add_option("--density", options.density, "Share of the parameters kept")
      ->capture_default_str();
  app.add_option(
         "--alpha", options.alpha,
         "The survivors' size in standard deviations: 1 suits large models, small ones want "
         "it tuned (0.5 to 10)")
      ->capture_default_str();
  app.add_option(
         "--magnitude", options.magnitude,
         "deviation: alpha times that of all entries; mean: alpha times the mean of those kept")
      ->check(CLI::IsMember({"deviation", "mean"}))
      ->capture_default_str();
}

int run_verb(int argc, char** argv) {
  Options options;
  CommandLine line("delta", "Files carry the hash of their base and refuse another one.");
  line.app().require_subcommand(1);
  CLI::App& extract_app = *line.app().add_subcommand("extract", "TUNED - BASE into a .cdelta file");
  extract_app.add_option("tuned", options.tuned, "Fine-tuned checkpoint folder")->required();
  extract_app.add_option("out", options.out, ".cdelta file to write")->required();
  extract_app.add_option("--base", options.base,
                         "Checkpoint folder it was tuned from; default: zeros (an adapter)");
  add_ternary_options(extract_app, options);

  CLI::App& apply_app = *line.app().add_subcommand("apply", "a base with deltas added");
  apply_app.add_option("base", options.base, "Checkpoint folder")->required();
  apply_app.add_option("out", options.out, "Checkpoint folder to write")->required();
  apply_app.add_option("--memory", options.memory, "Budget")->capture_default_str();

  CLI::App& combine_app = *line.app().add_subcommand("combine", "one delta of several");
  combine_app.add_option("out", options.out, ".cdelta file to write")->required();
  combine_app.add_option("--merge", options.merge, "sum, or ties: the mean of the elected sign")
      ->check(CLI::IsMember({"sum", "ties"}))
      ->capture_default_str();
  add_ternary_options(combine_app, options);
  for (CLI::App* app : {&apply_app, &combine_app}) {
    app->add_option("--delta", options.deltas, ".cdelta file; may be repeated")->required();
    app->add_option("--weight", options.weights, "One a delta; default 1");
  }

  CLI::App& info_app =
      *line.app().add_subcommand("info", "what deltas hold, and how alike they are");
  info_app.add_option("deltas", options.deltas, ".cdelta files")->required();
  for (CLI::App* app : {&extract_app, &apply_app, &combine_app, &info_app}) {
    app->add_flag("--json", options.json, "Print JSON");
  }
  if (const auto done = line.parse(argc, argv)) return *done;
  if (extract_app.parsed()) return extract(options);
  if (apply_app.parsed()) return apply(options);
  return combine_app.parsed() ? combine(options) : info(options);
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("delta", [&] { return run_verb(argc, argv); });
}
