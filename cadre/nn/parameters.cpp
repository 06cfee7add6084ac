#include "cadre/nn/parameters.h"

#include <set>

namespace cadre {

std::vector<std::pair<std::string, torch::Tensor>> unique_parameters(
    const torch::nn::Module& module) {
  std::vector<std::pair<std::string, torch::Tensor>> result;
  std::set<const void*> seen;
  for (const auto& item : module.named_parameters()) {
    if (seen.insert(item.value().unsafeGetTensorImpl()).second) {
      result.emplace_back(item.key(), item.value());
    }
  }
  return result;
}

}  // namespace cadre
