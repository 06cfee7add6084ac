/// cadre replay: what each cache policy would have hit on recorded routes.

#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/plot.h"
#include "cadre/base/units.h"
#include "cadre/engine/forecast_replay.h"
#include "cadre/engine/replay.h"
#include "tools/common/command_line.h"
#include "tools/common/json_text.h"

namespace {

using namespace cadre;
using namespace cadre::engine;

struct Options {
  std::filesystem::path trace, svg, predictor;
  double reads_per_layer = 1;
  std::string capacities = "0.5c,0.95c,2c,4c,6c";
  int64_t warm_up = 0;
  bool prompt = false, json = false;
};

/// "64" experts, "2c" cycles, "25%" of all experts.
int64_t parse_capacity(const RouteTrace& trace, const std::string& text) {
  size_t used = 0;
  double value = -1;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
  }
  const std::string unit = text.substr(std::min(used, text.size()));
  const auto all = static_cast<double>(trace.layers * trace.experts);
  if (value >= 0 && value <= 1e9 && unit == "c") return capacity_of(trace, value);
  if (value >= 0 && value <= 100 && unit == "%") return static_cast<int64_t>(value / 100 * all);
  if (value >= 0 && value <= 1e9 && unit.empty()) return static_cast<int64_t>(value);
  throw UsageError("--capacity '{}': write experts (64), cycles (2c) or a share of all (25%)",
                   text);
}

std::vector<int64_t> parse_capacities(const RouteTrace& trace, const std::string& text) {
  std::vector<int64_t> capacities;
  std::stringstream list(text);
  for (std::string item; std::getline(list, item, ',');)
    capacities.push_back(parse_capacity(trace, item));
  if (capacities.empty()) throw UsageError("--capacity is empty");
  return capacities;
}

nlohmann::ordered_json cells_json(const RouteTrace& trace, const std::vector<ReplayCell>& cells,
                                  const std::vector<ForecastCell>& ahead) {
  nlohmann::ordered_json json = {{"model", trace.model},     {"layers", trace.layers},
                                 {"experts", trace.experts}, {"used", trace.used},
                                 {"tokens", trace.size()},   {"cells", nlohmann::json::array()}};
  for (const ReplayCell& cell : cells)
    json["cells"].push_back({{"policy", cell.policy},
                             {"capacity", cell.capacity},
                             {"cycles", cell.cycles},
                             {"requests", cell.requests},
                             {"hits", cell.hits},
                             {"hit_rate", cell.hit_rate()}});
  for (const ForecastCell& cell : ahead)
    json["read_ahead"].push_back({{"policy", cell.policy},
                                  {"forecast", cell.forecast},
                                  {"capacity", cell.capacity},
                                  {"hit_rate", cell.hit_rate()},
                                  {"reads", cell.reads},
                                  {"unused", cell.unused},
                                  {"waiting", cell.stall}});
  return json;
}

void print_ahead(const Options& options, const std::vector<ForecastCell>& cells) {
  std::cout << fmt::format(
      "\nWith reading ahead, {} reads in the time of a layer; waiting is in layers a pass:\n\n",
      options.reads_per_layer);
  std::cout << forecast_table(cells).str();
}

void print_table(const RouteTrace& trace, const std::vector<ReplayCell>& cells) {
  std::cout << fmt::format("{}: {} tokens, {} layers of {} experts, {} used; one cycle is {}\n\n",
                           trace.model, trace.size(), trace.layers, trace.experts, trace.used,
                           trace.layers * trace.used);
  std::cout << replay_table(cells).str();
  std::cout << "\nplec is given the true routes of each pass as its forecast; belady knows "
               "everything.\n";
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("replay",
                   "Hits of demanded experts only, without prefetch. belady is the bound that no "
                   "policy can beat. A cycle is what one token needs: experts used x layers.");
  line.add("trace", "trace", options.trace,
           "Trace file (safetensors), or a published .route.csv[.gz]")
      ->required();
  line.add("trace", "--capacity", options.capacities,
           "Comma-separated: experts (64), cycles (2c), share of all experts (25%)");
  line.add("trace", "--warm-up", options.warm_up, "First passes that fill the cache, not counted");
  line.add_flag("trace", "--prompt", options.prompt,
                "Replay the prompt's tokens one by one first, not counted");
  line.add("forecast", "--predictor-file", options.predictor,
           "Also replay with reading ahead by this path predictor (cadre train-predictor)");
  line.add("forecast", "--reads-per-layer", options.reads_per_layer,
           "Experts that can be read while a layer computes")
      ->check(CLI::PositiveNumber);
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
  line.add(kOutputGroup, "--svg", options.svg, "Picture to write (.svg or .png)");
  if (const auto done = line.parse(argc, argv)) return *done;

  const RouteTrace all = read_trace(options.trace);
  RouteTrace trace = decode_part(all);
  if (trace.size() == 0) throw UsageError("{}: no generated tokens in it", options.trace.string());
  ReplayOptions replay = {.warm_up = options.warm_up};
  if (options.prompt) {
    replay.warm_up += all.size() - trace.size();
    trace = token_by_token(all);
  }
  const auto capacities = parse_capacities(trace, options.capacities);
  const auto cells = replay_all(trace, capacities, replay);
  std::vector<ForecastCell> ahead;
  if (!options.predictor.empty())
    ahead =
        compare_forecasts(trace, path_forecasts(options.prompt ? trace : all, options.predictor),
                          capacities, options.reads_per_layer);
  if (!options.svg.empty()) write_plot(replay_chart(cells, trace.model), options.svg);
  if (options.json)
    std::cout << pretty(cells_json(trace, cells, ahead)) << '\n';
  else
    print_table(trace, cells);
  if (!options.json && !ahead.empty()) print_ahead(options, ahead);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("replay", [&] { return run(argc, argv); });
}
