#pragma once

/// config.json of a mixture-of-experts model made from a dense one.

#include <nlohmann/json.hpp>
#include <string>

#include "cadre/reshape/schema.h"

namespace cadre::reshape {

struct MoeShape {
  int64_t experts = 0, used = 0;
  int64_t inner = 0;   ///< of one routed expert
  int64_t shared = 0;  ///< shared experts, each as wide as a routed one
};

/// `target`: deepseek (what `cadre train` goes on with), mixtral, qwen3_moe; "" = qwen3_moe for
/// qwen3, deepseek for llama. The weights of the chosen experts sum to 1. Throws UsageError where
/// the dense model's attention is not the target's, or the target has no shared experts.
nlohmann::json moe_config(const Schema& dense, const std::string& target, const MoeShape& shape,
                          const std::string& where);

}  // namespace cadre::reshape
