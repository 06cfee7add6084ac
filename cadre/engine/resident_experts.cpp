#include "cadre/engine/resident_experts.h"

#include <map>
#include <numeric>
#include <utility>

#include "cadre/base/error.h"
#include "cadre/engine/expert_store.h"
#include "cadre/engine/weights.h"

namespace cadre::engine {

ResidentExperts::ResidentExperts(const TensorSource& source, Packer& packer) {
  const ModelSpec& spec = source.spec();
  layers_.resize(static_cast<size_t>(spec.layers));
  for (int64_t layer = 0; layer < spec.layers; ++layer) {
    if (!spec.has_whole_experts(layer)) continue;
    std::map<const std::byte*, ExpertPanels> known;  // merged experts share their weights
    for (int64_t e = 0; e < spec.experts; ++e) {
      const SourceTensor gate = expert_matrix(source, layer, "gate", e);
      auto [found, is_new] = known.try_emplace(gate.bytes.data());
      if (is_new) {
        found->second = {.gate = packer.pack(gate),
                         .up = packer.pack(expert_matrix(source, layer, "up", e)),
                         .down = packer.pack(expert_matrix(source, layer, "down", e))};
      }
      layers_[static_cast<size_t>(layer)].push_back(found->second);
    }
  }
}

ResidentExperts::ResidentExperts(const ExpertFiles& pack, ReadMethod method)
    : slab_(std::make_unique<Slab>(pack.count() * pack.slot_bytes())) {
  ExpertStore store(pack, open_file_reader(pack.paths, method, ExpertStore::Options().in_flight),
                    {});
  layers_.resize(static_cast<size_t>(pack.grid.layers));
  std::byte* slot = slab_->data();
  for (int64_t layer = 0; layer < pack.grid.layers; ++layer) {
    if (pack.layers[static_cast<size_t>(layer)].bytes == 0) continue;
    for (int64_t e = 0; e < pack.grid.experts; ++e, slot += pack.slot_bytes()) {
      store.submit(pack.grid.id(layer, e), slot, ExpertStore::Priority::kDemand);
      layers_[static_cast<size_t>(layer)].push_back(pack.panels(pack.grid.id(layer, e), slot));
    }
  }
  while (store.pending() > 0) {
    for (const ExpertStore::Arrival& arrival : store.wait()) {
      if (!arrival.error.empty()) throw IoError("{}", arrival.error);
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
