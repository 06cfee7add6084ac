#pragma once

/// mergekit-moe's documents as upcycle's inputs and parameters: base_model, experts (source_model,
/// positive_prompts, negative_prompts, noise_scale alike for all), gate_mode (hidden, hidden_avg,
/// cheap_embed, random, uniform_random), experts_per_token, shared_experts (at most one),
/// architecture. Prompts are read where the router looks, not at the layer's input as mergekit
/// does.

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace cadre::reshape {

struct UpcycleConfig {
  std::vector<std::string> models;  ///< paths; base_model first
  nlohmann::json parameters;        ///< of the operation upcycle
};

/// Throws UsageError that begins with `where`: an unknown key (with the nearest), a missing or a
/// mistyped one, what upcycle does not do.
UpcycleConfig parse_upcycle_config(const nlohmann::json& document, const std::string& where);

}  // namespace cadre::reshape
