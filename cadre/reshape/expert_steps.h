#pragma once

/// What the operations on experts share: matrices by role, tensors' names, steps over rows.

#include <array>
#include <span>
#include <string>
#include <vector>

#include "cadre/reshape/plan.h"

namespace cadre::reshape {

inline constexpr std::array kExpertRoles = {Role::kExpertGate, Role::kExpertUp, Role::kExpertDown};

/// A routed expert's matrix, or a stack of them.
bool is_routed_expert(const SchemaTensor& tensor);
/// Layers that have routed experts, rising. Throws UsageError when there is none.
std::vector<int64_t> expert_layers(const Schema& schema);
/// What an expert's matrix is stored as.
DType expert_dtype(const Schema& schema, Role role, int64_t layer, int64_t expert);
/// All of one expert's matrix.
std::vector<float> read_expert(const Checkpoint& checkpoint, Role role, int64_t layer,
                               int64_t expert);

/// A step that copies one expert's matrix as that of another number.
Step copy_expert_step(const Schema& schema, Role role, int64_t layer, int64_t from, int64_t to);
/// A step that copies the given rows of a tensor, runs of neighbours together.
Step copy_rows_step(const SchemaTensor& tensor, int checkpoint, std::span<const int32_t> rows,
                    const std::string& name);

/// Fills a router's matrix of `layer`: normal numbers of that deviation (0 = zeros).
WholeKernel random_router(float deviation, int64_t seed, int64_t layer);

/// Sets the config's number of routed experts under the key that the architecture uses. Throws
/// UsageError when it has none.
void set_expert_count(nlohmann::json& config, int64_t experts, const std::string& where);

/// The statistics an operation needs. Throws UsageError that says how to get them.
const StatsIndex& need_stats(const PlanRequest& request, const std::string& what);

}  // namespace cadre::reshape
