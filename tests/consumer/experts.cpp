// An expert layer in a user's own program.

#include "cadre/base/error.h"
#include "cadre/base/main.h"
#include "cadre/experts/expert_layer.h"

int main() {
  return cadre::run_main("consumer", [] {
    cadre::ExpertLayer layer({.hidden = 16, .inner = 8, .experts = 4, .router = {.k = 2}});
    cadre::LayerContext context;
    const torch::Tensor output = layer.forward(torch::randn({1, 5, 16}), context);
    if (output.sizes() != torch::IntArrayRef({1, 5, 16})) throw cadre::Error("wrong output shape");
    return 0;
  });
}
