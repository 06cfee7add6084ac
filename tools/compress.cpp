/// cadre compress: experts' matrices as low rank plus a few whole rows.

#include "cadre/base/main.h"
#include "tools/common/reshape_command.h"

int main(int argc, char** argv) {
  return cadre::run_main("compress", [&] {
    return cadre::run_op_verb("compress", "lowrank_sparse", argc, argv,
                              "cadre run computes with the factors as they are.");
  });
}
