/// cadre upcycle: dense models of one shape become the experts of one model.

#include <algorithm>
#include <string_view>

#include "cadre/base/main.h"
#include "cadre/formats/file.h"
#include "cadre/reshape/upcycle_config.h"
#include "cadre/reshape/yaml.h"
#include "tools/common/reshape_command.h"

namespace {

using namespace cadre;

/// Inputs and parameters from mergekit's file instead of flags.
int run_mergekit(int argc, char** argv) {
  std::string file;
  ReshapeCommand options;
  CommandLine line("upcycle", "Models and routers as mergekit-moe's YAML file says.");
  line.add("model", "--mergekit", file, "YAML file")->required();
  add_reshape_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;
  const auto config =
      reshape::parse_upcycle_config(reshape::parse_yaml(read_file(file), file), file);
  const reshape::PlanFile plan = {
      .steps = {reshape::plan_step("upcycle", config.models, config.parameters, file)}};
  return run_reshape("upcycle", plan, options, line.threads());
}

int run(int argc, char** argv) {
  const bool mergekit = std::any_of(argv, argv + argc, [](const char* argument) {
    return std::string_view(argument).starts_with("--mergekit");
  });
  if (mergekit) return run_mergekit(argc, argv);
  return run_op_verb(
      "upcycle", "upcycle", argc, argv,
      "Feed-forward layers become experts, everything else is averaged or taken from "
      "one input. With --mergekit FILE.yaml, models and routers are as mergekit-moe's "
      "file says.");
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("upcycle", [&] { return run(argc, argv); });
}
