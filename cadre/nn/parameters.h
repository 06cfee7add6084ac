#pragma once

#include <torch/torch.h>

#include <string>
#include <utility>
#include <vector>

namespace cadre {

/// A module's parameters under their names, each tensor once: a part that several layers share (the
/// cell of recurrent routers) stands under the name by which it is met first.
std::vector<std::pair<std::string, torch::Tensor>> unique_parameters(
    const torch::nn::Module& module);

}  // namespace cadre
