#include "cadre/reshape/moe_config.h"

#include <algorithm>
#include <array>

#include "cadre/base/error.h"

namespace cadre::reshape {
namespace {

struct Target {
  const char *name, *dense, *class_name;
};
constexpr std::array kTargets = {Target{"deepseek", "llama", "DeepseekForCausalLM"},
                                 Target{"mixtral", "llama", "MixtralForCausalLM"},
                                 Target{"qwen3_moe", "qwen3", "Qwen3MoeForCausalLM"}};

const Target& target_for(const std::string& name, const std::string& dense,
                         const std::string& where) {
  std::string known;
  for (const Target& target : kTargets) {
    known += (known.empty() ? "" : ", ") + std::string(target.name);
    if (target.dense != dense) continue;
    if (name.empty() || name == target.name) return target;
  }
  if (name.empty()) {
    throw UsageError("{}: a model of type \"{}\" cannot get experts (llama and qwen3 can)", where,
                     dense);
  }
  throw UsageError("{}: a model of type \"{}\" cannot become \"{}\" (known: {})", where, dense,
                   name, known);
}

}  // namespace

nlohmann::json moe_config(const Schema& dense, const std::string& target, const MoeShape& shape,
                          const std::string& where) {
  if (dense.experts() > 0) {
    throw UsageError("{}: {} has experts already: it takes dense models", where, dense.where());
  }
  const Target& to = target_for(target, dense.model_type(), where);
  const std::string name = to.name;
  if (shape.used < 1 || shape.used > shape.experts) {
    throw UsageError("{}: used is {}, must be from 1 to the {} experts", where, shape.used,
                     shape.experts);
  }
  if (shape.shared > 0 && name != "deepseek") {
    throw UsageError("{}: {} has no shared experts; use to = \"deepseek\"", where, name);
  }
  nlohmann::json config = dense.config();
  config["architectures"] = {to.class_name};
  config["model_type"] = name;
  config["num_experts_per_tok"] = shape.used;
  config["norm_topk_prob"] = true;
  if (name == "deepseek") {
    config["n_routed_experts"] = shape.experts;
    config["moe_intermediate_size"] = shape.inner;
    config["n_shared_experts"] = shape.shared > 0 ? nlohmann::json(shape.shared) : nullptr;
    config["first_k_dense_replace"] = 0;
    config["moe_layer_freq"] = 1;
    config["scoring_func"] = "softmax";
  } else if (name == "mixtral") {
    config["num_local_experts"] = shape.experts;
    config["intermediate_size"] = shape.inner;
  } else {
    config["num_experts"] = shape.experts;
    config["moe_intermediate_size"] = shape.inner;
    config["decoder_sparse_step"] = 1;
    config["mlp_only_layers"] = nlohmann::json::array();
  }
  return config;
}

}  // namespace cadre::reshape
