/// cadre prune: a model without the experts that matter least.

#include "cadre/base/main.h"
#include "tools/common/reshape_command.h"

int main(int argc, char** argv) {
  return cadre::run_main("prune", [&] {
    return cadre::run_op_verb(
        "prune", "prune_experts", argc, argv,
        "Experts and their rows of the router are dropped; the rest is copied.");
  });
}
