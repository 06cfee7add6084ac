#pragma once

/// All experts packed in memory at load: the provider of models that fit.

#include <memory>
#include <vector>

#include "cadre/engine/expert_files.h"
#include "cadre/engine/expert_provider.h"
#include "cadre/engine/file_reader.h"
#include "cadre/engine/panel_memory.h"
#include "cadre/engine/slab.h"

namespace cadre::engine {

class ResidentExperts : public ExpertProvider {
 public:
  /// Throws FormatError that names a tensor.
  ResidentExperts(const TensorSource& source, Packer& packer);
  /// Those of a pack, read as they are. Throws IoError that names the expert and the file.
  ResidentExperts(const ExpertFiles& pack, ReadMethod method);

  bool is_resident(int64_t, int32_t) const override { return true; }
  void begin_layer(int64_t layer, std::span<const int32_t> experts, std::span<const float> weights,
                   int64_t tokens) override;
  std::span<const int32_t> take_ready() override;
  ExpertPanels panels(int64_t layer, int32_t expert) const override;
  void release(int64_t, int32_t) override {}
  void end_layer(int64_t) override {}
  void observe(int64_t, const float*, int64_t, std::span<const int32_t>) override {}
  ExpertCounters counters() const override { return counters_; }

 private:
  std::unique_ptr<Slab> slab_;                     ///< a pack's records
  std::vector<std::vector<ExpertPanels>> layers_;  ///< [layer][expert]; dense layers have none
  std::vector<int32_t> ready_;                     ///< 0, 1, 2 ...
  size_t waiting_ = 0;                             ///< of them not handed out
  ExpertCounters counters_;
};

}  // namespace cadre::engine
