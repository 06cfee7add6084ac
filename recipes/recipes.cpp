#include "recipes/recipes.h"

#include <string>

#include "cadre/base/error.h"
#include "cadre/base/text.h"

namespace cadre::recipes {

const std::vector<RecipeEntry>& all_recipes() {
  static const std::vector<RecipeEntry> recipes = {
      {"dynamic-routing", "Harder Tasks Need More Experts: Dynamic Routing in MoE Models (2024)",
       "experts until their probabilities pass p: less error than top-2 for as much work, and more "
       "work where it is hard",
       dynamic_routing},
      {"deepseekmoe",
       "DeepSeekMoE: Towards Ultimate Expert Specialization in Mixture-of-Experts Language Models "
       "(2024)",
       "many small experts and a few shared ones beat few big ones of the same size and work",
       deepseekmoe},
      {"adamoe",
       "AdaMoE: Token-Adaptive Routing with Null Experts for Mixture-of-Experts Language Models "
       "(2024)",
       "null experts in a trained top-k layer: less error with fewer experts, and more of them "
       "where it is hard",
       adamoe},
      {"smoe-dropout",
       "Sparse MoE as the New Dropout: Scaling Dense and Self-Slimmable Transformers (2023)",
       "a frozen random router and a growing k: the trained net gets better with every expert it "
       "is granted",
       smoe_dropout},
      {"sparse-ot", "Sparsity-Constrained Optimal Transport (2023)",
       "a plan with a limit on nonzeros loads experts equally without a balance loss and leaves "
       "hardly a token out",
       sparse_ot},
      {"thor", "Taming Sparsely Activated Transformer with Stochastic Experts (2022)",
       "experts by lot that are taught to agree: more accurate than a learned gate where labels "
       "are few and wrong",
       thor},
      {"rmoe", "Layerwise Recurrent Router for Mixture-of-Experts (2025)",
       "a recurrent cell over depth tells routers what those below decided: less error where only "
       "the first layer sees what decides",
       rmoe},
      {"union-of-experts",
       "Union of Experts: Adapting Hierarchical Routing to Equivalently Decomposed Transformer "
       "(2025)",
       "dense blocks cut into exact sums: half of the parts do about as well as all",
       union_of_experts},
      {"compeft",
       "ComPEFT: Compression for Communicating Parameter Efficient Updates via Sparsification and "
       "Quantization (2023)",
       "a fine-tuning residual as the signs of its largest fifth and one tuned magnitude keeps the "
       "accuracy at under a bit a parameter",
       compeft},
      {"knowledge-concentration",
       "Knowledge Concentration: Learning 100K Object Classifiers in a Single CNN (2017)",
       "one student of many teachers, each for its own classes and at its own pace, beats one that "
       "learns from noisy labels",
       knowledge_concentration},
      {"mc-smoe",
       "Merge, Then Compress: Demystify Efficient SMoE with Hints from Its Routing Policy (2024)",
       "half of the experts, merged by how the router uses them after their neurons are aligned, "
       "do nearly as well as all; plain averages do not",
       mc_smoe},
      {"factorllm",
       "FactorLLM: Factorizing Knowledge via Mixture of Experts for Large Language Models (2024)",
       "a dense layer cut into slices without changing a weight, and a router that the dense layer "
       "tells which of them to use, keep most of the model with half of the work",
       factorllm},
      {"composition-of-experts",
       "Composition of Experts: A Modular Compound AI System Leveraging Large Language Models "
       "(2024)",
       "a prompt is classified and its category looked up: better than the best single model, and "
       "steadier than learning each prompt's best model",
       composition_of_experts},
      {"glider", "Glider: Global and Local Instruction-Driven Expert Router (2025)",
       "a task's instruction beside each token's own scores finds the right adapter where tokens "
       "can't tell the task",
       glider},
  };
  return recipes;
}

const RecipeEntry& recipe_named(std::string_view name) {
  std::vector<std::string> names;
  for (const RecipeEntry& entry : all_recipes()) {
    if (entry.name == name) return entry;
    names.push_back(entry.name);
  }
  throw UsageError("no recipe is called '{}'{} (cadre recipe list shows them)", one_line(name),
                   did_you_mean(name, names));
}

}  // namespace cadre::recipes
