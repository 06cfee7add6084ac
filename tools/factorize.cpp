/// cadre factorize: a dense model's feed-forward layers cut into experts.

#include "cadre/base/main.h"
#include "tools/common/reshape_command.h"

int main(int argc, char** argv) {
  return cadre::run_main("factorize", [&] {
    return cadre::run_op_verb(
        "factorize", "factorize", argc, argv,
        "With all experts at work and the router at zero, the result is the dense model.");
  });
}
