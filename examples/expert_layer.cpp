// Builds an expert layer and trains it on a toy regression: eight linear maps, and each input's
// position says which of them it wants.

#include <torch/torch.h>

#include <cstdio>

#include "cadre/experts/expert_layer.h"

int main() {
  constexpr int64_t kSkills = 8, kHidden = 32, kTokens = 256;
  torch::manual_seed(1);
  const auto centers = 2 * torch::randn({kSkills, kHidden});
  const auto maps = torch::randn({kSkills, kHidden, kHidden}) / std::sqrt(kHidden);

  cadre::ExpertLayer layer({.hidden = kHidden,
                            .inner = 32,
                            .experts = 16,
                            .router = {.k = 2},
                            .objectives = {cadre::balance_expert(0.01), cadre::z_loss(0.001)},
                            .init_std = 0.1});
  torch::optim::Adam optimizer(layer.parameters(), 3e-3);

  for (int step = 0; step <= 300; ++step) {
    const auto skill = torch::randint(kSkills, {kTokens});
    const auto x = centers.index_select(0, skill) + torch::randn({kTokens, kHidden});
    const auto y = torch::bmm(maps.index_select(0, skill), x.unsqueeze(2)).view({1, kTokens, -1});

    cadre::LayerContext context;
    auto loss = torch::mse_loss(layer.forward(x.unsqueeze(0), context), y);
    if (step % 50 == 0) std::printf("step %3d  loss %.4f\n", step, loss.item<double>());
    for (const auto& aux : context.aux) loss = loss + aux.value;
    optimizer.zero_grad();
    loss.backward();
    optimizer.step();
  }
}
