/// cadre plan: what a model needs and what a memory budget gives it.

#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/base/table.h"
#include "cadre/base/units.h"
#include "cadre/engine/cores.h"
#include "cadre/engine/memory_limits.h"
#include "cadre/engine/memory_plan.h"
#include "cadre/engine/open_experts.h"
#include "cadre/engine/pack.h"
#include "tools/common/engine_options.h"
#include "tools/common/json_text.h"
#include "tools/plan/ensemble.h"

namespace {

using namespace cadre;
using namespace cadre::engine;

struct Options {
  std::filesystem::path model, ensemble, trace;
  std::string memory, kv_type = "bf16";
  int64_t context = 0;
  bool json = false;
};

std::string bytes_text(int64_t bytes) { return format_bytes(static_cast<uint64_t>(bytes)); }

nlohmann::ordered_json plan_json(const MemoryPlan& plan, const Bandwidths& bandwidths) {
  return {{"budget", plan.budget},
          {"least", plan.least},
          {"resident", plan.resident},
          {"total", plan.total()},
          {"process", plan.process},
          {"trunk", plan.trunk},
          {"keys_values", plan.keys_values},
          {"activations", plan.activations},
          {"experts",
           {{"bytes", plan.experts.bytes},
            {"capacity", plan.experts.capacity},
            {"staging", plan.experts.staging},
            {"of", plan.expert_count},
            {"expert_bytes", plan.expert_bytes},
            {"cycle", plan.cycle},
            {"cycles", plan.cycles()}}},
          {"hit_rate", plan.hit_rate},
          {"hit_source", plan.hit_source},
          {"bandwidth", {{"memory", bandwidths.memory}, {"disk", bandwidths.disk}}},
          {"compute_seconds", plan.compute_seconds},
          {"stall_seconds", plan.stall_seconds},
          {"tokens_per_second", plan.tokens_per_second()}};
}

void print_plan(const MemoryPlan& plan, const Bandwidths& bandwidths, int64_t context) {
  Table table({"memory", "bytes", ""});
  table.add_row({"trunk", bytes_text(plan.trunk), "weights that every token needs"});
  table.add_row(
      {"keys and values", bytes_text(plan.keys_values), fmt::format("{} tokens", context)});
  table.add_row({"activations", bytes_text(plan.activations)});
  table.add_row({"program", bytes_text(plan.process)});
  if (plan.expert_count > 0)
    table.add_row(
        {"experts", bytes_text(plan.experts.bytes),
         fmt::format("{} of {} ({} each), {:.2f} cycles of {}", plan.experts.capacity,
                     plan.expert_count, bytes_text(plan.expert_bytes), plan.cycles(), plan.cycle)});
  table.add_row({"total", bytes_text(plan.total()), "of " + bytes_text(plan.budget)});
  table.add_row({"least", bytes_text(plan.least)});
  table.add_row({"everything", bytes_text(plan.resident)});
  std::cout << table.str() << '\n';
  if (plan.expert_count > 0)
    std::cout << fmt::format("hits      {:.0f} % ({})\n", 100 * plan.hit_rate, plan.hit_source);
  std::cout << fmt::format(
      "speed     about {:.3g} tokens/s: {} computing, {} waiting for the disk (memory {}/s, disk "
      "{}/s, measured)\n",
      plan.tokens_per_second(), format_duration(plan.compute_seconds),
      format_duration(plan.stall_seconds), bytes_text(static_cast<int64_t>(bandwidths.memory)),
      bytes_text(static_cast<int64_t>(bandwidths.disk)));
}

int run(int argc, char** argv) {
  Options options;
  CommandLine line("plan", "Loads nothing; reads 0.2 s of experts to measure the disk.");
  line.add(kModelGroup, "model", options.model, "GGUF file, pack or checkpoint folder");
  line.add(kModelGroup, "--ensemble", options.ensemble,
           "Several models behind one router, as this TOML file says, instead of one model");
  line.add(kModelGroup, "--memory", options.memory,
           "Budget for the whole process, e.g. 2GiB; default: what the machine and the control "
           "group have free, less a margin");
  line.add(kModelGroup, "--context", options.context,
           "Tokens of keys and values; 0 = the model's, at most 4096");
  add_kv_type(line, kModelGroup, options.kv_type);
  line.add(kModelGroup, "--trace", options.trace, "Routes of this model to forecast hits from");
  line.add_flag(kOutputGroup, "--json", options.json, "Print JSON");
  if (const auto done = line.parse(argc, argv)) return *done;
  const int64_t memory =
      options.memory.empty() ? 0 : static_cast<int64_t>(parse_bytes(options.memory));
  if (options.model.empty() == options.ensemble.empty()) {
    throw UsageError("give a model or --ensemble (cadre plan --help shows the options)");
  }
  if (!options.ensemble.empty()) {
    plan_ensemble({.file = options.ensemble,
                   .memory = memory,
                   .context = options.context,
                   .kv_type = kv_type_named(options.kv_type),
                   .json = options.json});
    return 0;
  }

  const auto source = open_source(options.model);
  const PackedType packed_type = packed_types(*source, {});
  const ExpertFiles files = open_expert_files(*source, packed_type);
  std::optional<RouteTrace> trace;
  if (!options.trace.empty()) trace = read_trace(options.trace);
  PlanRequest request = {.memory = memory > 0 ? memory : default_memory(read_memory_limits()),
                         .context = options.context > 0
                                        ? options.context
                                        : std::min<int64_t>(source->spec().context, 4096),
                         .kv_type = kv_type_named(options.kv_type),
                         .trace = trace ? &*trace : nullptr};
  request.bandwidths = measure_bandwidths(files, physical_cores());
  const MemoryPlan plan = plan_memory(*source, files, request, packed_type);
  if (options.json)
    std::cout << pretty(plan_json(plan, request.bandwidths)) << '\n';
  else
    print_plan(plan, request.bandwidths, request.context);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("plan", [&] { return run(argc, argv); });
}
