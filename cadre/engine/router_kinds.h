#pragma once

/// The routers of "cadre" in config.json (cadre/formats/router_kinds.h) as this wing runs them.

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "cadre/engine/model_spec.h"

namespace cadre::engine {

/// Takes the router of a config.json, if it names one, into the spec: router, router_config and,
/// for routers without a fixed k, experts_used. Throws FormatError for a router that does not fit,
/// that looks ahead and names no fallback, or that this wing does not run.
void read_router(const nlohmann::json& config, const std::string& where, ModelSpec& spec);

/// The same from a config at hand; throws UsageError.
void apply_router(const RouterConfig& config, ModelSpec& spec);

/// Whether the model's own router looks ahead, so that a plain top-k stands in.
bool is_fallback(const RouterConfig& config);

/// The expert that stochastic routers give every token of a layer when a model is used: the learn
/// wing's draw for a sequence, which is the same at each step of generation.
int32_t drawn_expert(int64_t layer, int64_t experts);

}  // namespace cadre::engine
