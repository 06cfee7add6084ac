/// cadre reshape: checkpoints become another checkpoint, by a plan of steps.

#include "cadre/base/main.h"
#include "tools/common/reshape_command.h"

namespace {

using namespace cadre;

int run(int argc, char** argv) {
  std::string plan;
  ReshapeCommand options;
  CommandLine line("reshape",
                   "The plan is a TOML file of [[step]] tables with op, inputs and the operation's "
                   "own keys; a step without inputs reads the step before. A run that was stopped "
                   "goes on where it was when it is started again.");
  line.add("plan", "plan", plan, "Plan (TOML)")->required();
  add_reshape_options(line, options);
  if (const auto done = line.parse(argc, argv)) return *done;
  return run_reshape("reshape", reshape::read_plan_file(plan), options, line.threads());
}

}  // namespace

int main(int argc, char** argv) {
  return cadre::run_main("reshape", [&] { return run(argc, argv); });
}
