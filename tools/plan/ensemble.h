#pragma once

/// cadre plan --ensemble: what each model of an ensemble needs, and how many stay open together.

#include <cstdint>
#include <filesystem>

#include "cadre/engine/kv_type.h"

namespace cadre {

struct EnsemblePlanRequest {
  std::filesystem::path file;
  int64_t memory = 0;   ///< bytes; 0 = as the file says, else what is free
  int64_t context = 0;  ///< tokens; 0 = the models', at most 4096
  engine::KvType kv_type = engine::KvType::kBf16;
  bool json = false;
};

/// Prints it. Throws what reading the file and ModelPool throw.
void plan_ensemble(const EnsemblePlanRequest& request);

}  // namespace cadre
