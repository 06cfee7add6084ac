#include "cadre/engine/resident_experts.h"

#include <numeric>
#include <utility>

#include "cadre/engine/weights.h"

namespace cadre::engine {

ResidentExperts::ResidentExperts(const TensorSource& source, Packer& packer) {
  const ModelSpec& spec = source.spec();
  layers_.resize(static_cast<size_t>(spec.layers));
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    if (!spec.has_experts(layer)) continue;
    for (int64_t e = 0; e < spec.experts; ++e) {
      layers_[static_cast<size_t>(layer)].push_back(
          {.gate = packer.pack(expert_matrix(source, layer, "gate", e)),
           .up = packer.pack(expert_matrix(source, layer, "up", e)),
           .down = packer.pack(expert_matrix(source, layer, "down", e))});
    }
  }
}

void ResidentExperts::begin_layer(int64_t, std::span<const int32_t> experts, std::span<const float>,
                                  int64_t) {
  waiting_ = experts.size();
  ready_.resize(waiting_);
  std::iota(ready_.begin(), ready_.end(), 0);
  counters_.hits += static_cast<int64_t>(experts.size());
}

std::span<const int32_t> ResidentExperts::take_ready() {
  const size_t count = std::exchange(waiting_, 0);
  return std::span(ready_).first(count);
}

ExpertPanels ResidentExperts::panels(int64_t layer, int32_t expert) const {
  return layers_[static_cast<size_t>(layer)][static_cast<size_t>(expert)];
}

}  // namespace cadre::engine
