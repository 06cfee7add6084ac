/// cadre merge-experts: fewer experts inside a model, guided by what its router does.

#include "cadre/base/main.h"
#include "tools/common/reshape_command.h"

int main(int argc, char** argv) {
  return cadre::run_main("merge-experts", [&] {
    return cadre::run_op_verb("merge-experts", "merge_experts", argc, argv,
                              "The router stays as it is; a map in the checkpoint sends its "
                              "choices to the merged experts.");
  });
}
